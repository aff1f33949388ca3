"""Read the JSON files by which a sentence-transformers folder says what it is.

This needs neither torch nor transformers: the driver reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
# Names of the file with the first module's settings over the years, the newest first.
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{model}_config.json"
    for model in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_PACKAGE = "sentence_transformers"
# Ends a message on what a folder asks for.
UNFOLLOWED = (
    "which pipemill can't follow. Set parameters.pooling to mean, cls, last or max for the vectors "
    "of the transformer alone: they are not those of SentenceTransformer.encode"
)


def read_recipe_files(read: Callable[[str], Any]) -> dict[str, Any]:
    """Read the JSON files of a model's folder that say how its vectors are made.

    Args:
        read: returns the content of a file; None for one that the model does not have.

    Returns:
        The files' contents, by their paths in the folder.

    Raises:
        ValueError: for a file that does not hold what sentence-transformers writes.
    """
    files: dict[str, Any] = {}

    def add(name: str) -> Any:
        content = read(name)
        if content is None:
            return None
        if name != MODULES and not isinstance(content, dict):
            raise ValueError(f"{name} is not a mapping")
        files[name] = content
        return content

    add(SETTINGS)
    modules = add(MODULES)
    if modules is None and is_model2vec(read("config.json")):
        add("config.json")
    for module, folder in iterate_modules(modules) if modules is not None else ():
        if module == "Transformer":
            add(join_path(folder, "config.json"))
            add(join_path(folder, "tokenizer_config.json"))
            any(add(join_path(folder, name)) for name in TRANSFORMER_SETTINGS)
        else:
            add(join_path(folder, "config.json"))
    return files


def is_model2vec(config: Any) -> bool:
    """Tell whether a config.json is one that model2vec writes."""
    if not isinstance(config, dict):
        return False
    named = config.get("architectures") or ()
    return config.get("model_type") == "model2vec" or "StaticModel" in named


def list_module_types(modules: Any) -> list[str]:
    """Return the types of all modules, in their order."""
    return [module for module, _ in iterate_modules(modules)]


def find_first_module(modules: Any) -> tuple[str, str]:
    """Return the type of the first module in modules.json, and its folder ("" for the model's).

    Raises:
        ValueError: for a file that does not hold what sentence-transformers writes.
    """
    first = next(iterate_modules(modules), None)
    if first is None:
        raise ValueError(f"{MODULES} is an empty list: it must name the model's modules")
    return first


def iterate_modules(modules: Any) -> Iterator[tuple[str, str]]:
    """Yield the type and folder of each module; the type of foreign code is its full name."""
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ValueError(f"{MODULES} is not a list of modules")
    for module in modules:
        name, folder = module.get("type"), module.get("path", "")
        if not isinstance(name, str) or not isinstance(folder, str):
            raise ValueError(f"{MODULES} has a module without a type or path: {module}")
        is_known = name.split(".")[0] == _PACKAGE
        folder = "" if folder == "." else folder.strip("/")
        if ".." in folder.split("/") or ":" in folder:
            raise ValueError(f"{MODULES} names a module outside of the model's folder: {folder}")
        yield name.rpartition(".")[2] if is_known else name, folder


def join_path(folder: str, name: str) -> str:
    """Return the path of a file in a module's folder; "" is the model's own."""
    return f"{folder}/{name}" if folder else name


def check_mapping(value: Any, path: str, name: str) -> dict[str, Any]:
    """Return a value of a file; an empty one if it is missing. Raise ValueError for no mapping."""
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} in {path} is not a mapping")
    return value or {}


def check_count(value: Any, path: str) -> int:
    """Return a value of a file. Raise ValueError if it is not a count of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} in {path} is not a number of 1 or more")
    return value
