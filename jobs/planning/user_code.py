"""Code of users: a pipeline class, and a pipeline or a model in the model's folder.

It is examined without an import, so that errors come at once, and nothing runs that the job does
not allow.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.registry import has_transformers_model

from pipemill.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from ..config.job import Job

# What workers import beside Python's own modules; and modules of Python that nothing imports.
_IMPORTED = set(
    "PIL av datasets filelock fsspec huggingface_hub jinja2 numpy packaging pandas psutil "
    "pyarrow pydantic ray regex requests rich safetensors tokenizers torch tqdm transformers "
    "typer yaml".split()
)
_HARMLESS = {"antigravity", "idlelib", "test", "this", "turtle"}


def check_class(name: str) -> None:
    """Raise ConfigError if there is no such module, or no such name in it."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute.isidentifier()):
        raise ConfigError(f"pipeline_class must be package.module:Class, not {name!r}")
    source = _find_source(name)
    names = None if source is None else _list_names(source)
    if names is not None and attribute not in names:
        hint = did_you_mean(attribute, names)
        raise ConfigError(f"pipeline_class {name!r}: {source} has no {attribute!r}; {hint}")
    if source is not None:
        _check_imported(f"pipeline_class {name!r}", module, source)


def check_registered(task: str, location: str) -> None:
    """Raise ConfigError if a task's module was changed since the program imported it.

    location: from where workers import the task, as "package.module:name".
    """
    module = location.partition(":")[0]
    source = getattr(sys.modules.get(module), "__file__", None)
    if source is not None:
        _check_imported(f"task {task!r}", module, Path(source))


def _check_imported(what: str, module: str, source: Path) -> None:
    if _is_outdated(module, source):
        raise ConfigError(
            f"{what}: {source} was changed after this Python imported it, and the old code would "
            f"answer: importlib.reload({module}), or restart Python"
        )


def _is_outdated(module: str, source: Path) -> bool:
    """Tell whether this Python holds other functions of a module than its source has now."""
    loaded = sys.modules.get(module)
    # Other loaders, such as pytest's, rewrite what they load.
    if type(getattr(loaded, "__loader__", None)) is not SourceFileLoader:
        return False
    try:
        codes = [compile(source.read_bytes(), str(source), "exec", dont_inherit=True)]
    except (OSError, SyntaxError, ValueError):  # removed, or no Python any more
        return True
    for code in codes:  # grows: functions and classes are constants of what is around them
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
    names = {code.co_qualname for code in codes}
    values = list(vars(loaded).values())
    values += [v for c in values if isinstance(c, type) for v in vars(c).values()]
    held = [function.__code__ for function in values if isinstance(function, FunctionType)]
    return any(
        code not in codes
        for code in held
        if code.co_filename == str(source) and code.co_qualname in names
    )


def digest_class(name: str) -> str | None:
    """Return a short digest of the source of a class's module; None if it has no source.

    A job with another source is another job.
    """
    source = _find_source(name)
    return None if source is None else hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def has_remote_pipeline(job: Job, path: str) -> bool:
    """Return whether the model's folder brings the pipeline for the job's task.

    Raises:
        ConfigError: if the folder's code is needed and model.trust_remote_code is false.
    """
    config = read_config(path, job.model.revision)
    remote = (config.get("custom_pipelines") or {}).get(job.task)
    is_used = remote is not None and job.pipeline_class is None
    if not job.model.trust_remote_code:
        if remote is not None and is_used:
            _refuse_code(job, f"for {job.task}", str(remote.get("impl")))
        classes = sorted((config.get("auto_map") or {}).items())
        if classes and not has_transformers_model(str(config.get("model_type"))):
            _refuse_code(job, "to load", ", ".join(str(code) for _, code in classes))
    return is_used


def _refuse_code(job: Job, purpose: str, code: str) -> None:
    raise ConfigError(
        f"the model {job.model.path} needs code in its folder {purpose} ({code}): read that code, "
        "and set model.trust_remote_code to true to run it"
    )


def read_config(path: str, revision: str | None) -> dict[str, Any]:
    """Read the model's config.json from a folder or from the Hub's local cache; {} without one.

    Raises:
        ConfigError: for a file that is not a JSON object.
    """
    file = ModelFiles(path, revision).find_here("config.json")
    if file is None:
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{file} is not a JSON object, as a model's config must be")
    return config


def _find_source(name: str) -> Path | None:
    """Find the source file of a class's module; None if the module has none.

    Raises:
        ConfigError: if there is no such module.
    """
    module = name.partition(":")[0]
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise ConfigError(
            f"pipeline_class {name!r} is looked for in the current folder, too, which no longer "
            "exists: go to another one"
        ) from None
    if here not in sys.path:
        sys.path.append(here)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ConfigError(
            f"pipeline_class {name!r}: there is no module {module!r}, neither installed nor in "
            f"{here}"
        )
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _list_names(source: Path) -> set[str] | None:
    """List the names that a module defines; None if only an import would show them."""
    try:
        tree = ast.parse(source.read_bytes())
    except SyntaxError as error:
        raise ConfigError(f"{source} is not Python: line {error.lineno}: {error.msg}") from None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if names & {"*", "__getattr__"} else names


def find_hiding_files(folder: Path) -> list[str]:
    """Return the modules in a folder that have the name of one that every worker imports."""
    names = (sys.stdlib_module_names - _HARMLESS) | _IMPORTED
    packages = (file.parent for file in folder.glob("*/__init__.py"))
    return sorted(path.name for path in (*folder.glob("*.py"), *packages) if path.stem in names)
