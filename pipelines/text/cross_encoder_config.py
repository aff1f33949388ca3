"""The function from a cross-encoder's logits to its scores, as the model's folder names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..embeddings.sentence_transformers_config import find_torch_activation
from ..embeddings.sentence_transformers_files import MODULES, SETTINGS, list_module_types

_CONFIG = "config.json"


def read_cross_encoder_files(read: Callable[[str], Any]) -> dict[str, Any]:
    """Read the JSON files of a model's folder that say how its logits become scores.

    Args:
        read: returns the content of a file; None for one that the model does not have.

    Returns:
        The files' contents, by name.
    """
    contents = {name: read(name) for name in (_CONFIG, SETTINGS)}
    files = {name: content for name, content in contents.items() if isinstance(content, dict)}
    is_cross_encoder = files.get(SETTINGS, {}).get("model_type") == "CrossEncoder"
    if is_cross_encoder and (modules := read(MODULES)) is not None:
        files[MODULES] = modules
    return files


def find_activation(files: Mapping[str, Any]) -> str | None:
    """Find the function that a cross-encoder with one label names.

    Args:
        files: as `read_cross_encoder_files` returns them.

    Returns:
        Its name in `torch.nn`. None for any other model, and for one that names no function:
        transformers' rule holds for these.

    Raises:
        ValueError: for a function that pipemill can't apply.
    """
    for module in list_module_types(files.get(MODULES, [])):
        if module not in ("Transformer", "Dropout"):
            raise ValueError(
                f"it is a cross-encoder whose scores are made by the module {module}, which "
                "pipemill can't follow"
            )
    config = files.get(_CONFIG, {})
    if _count_labels(config) != 1:
        return None
    path = _find_activation_path(config, files.get(SETTINGS, {}))
    if path is None:
        return None
    name = find_torch_activation(path)
    if name is None:
        raise ValueError(
            f"it is a cross-encoder whose scores are made by {path}, which pipemill can't follow: "
            "set parameters.function_to_apply to sigmoid or none"
        )
    return name


def find_default_activation(files: Mapping[str, Any]) -> str:
    """Return the function that transformers applies to the logits of a model with one label."""
    regression = files.get(_CONFIG, {}).get("problem_type") == "regression"
    return "Identity" if regression else "Sigmoid"


def _count_labels(config: Mapping[str, Any]) -> int:
    names = config.get("id2label")
    count = config.get("num_labels", 2)
    return len(names) if isinstance(names, dict) else count


def _find_activation_path(config: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Return what names the function; looked for as sentence-transformers' newest version does."""
    if settings.get("model_type") == "CrossEncoder" and settings.get("activation_fn") is not None:
        return settings["activation_fn"]
    section = config.get("sentence_transformers")
    if isinstance(section, dict) and section.get("activation_fn") is not None:
        return section["activation_fn"]
    return config.get("sbert_ce_default_activation_function")
