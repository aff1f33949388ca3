"""The score of a cross-encoder: what its folder says of the function from logits to scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .sentence_transformers_config import ACTIVATIONS, MODULES, SETTINGS, list_module_types

_CONFIG = "config.json"


def read_cross_encoder_files(read: Callable[[str], Any]) -> dict[str, Any]:
    """Read the JSON files of a model's folder that say how its logits become scores."""
    found = {name: read(name) for name in (_CONFIG, SETTINGS)}
    files = {name: content for name, content in found.items() if isinstance(content, dict)}
    if files.get(SETTINGS, {}).get("model_type") == "CrossEncoder":
        files[MODULES] = read(MODULES)
    return files


def find_activation(files: Mapping[str, Any]) -> str | None:
    """The name in `torch.nn` of the function that a cross-encoder of one label names.

    None for any other model, and for one that names none: transformers' rule holds for these.
    Raises ValueError, naming it, for a function that can't be followed.
    """
    for kind in list_module_types(files.get(MODULES) or []):
        if kind not in ("Transformer", "Dropout"):
            raise ValueError(
                f"it is a cross-encoder whose scores are made by the module {kind}, which pipemill "
                "can't follow"
            )
    config = files.get(_CONFIG, {})
    if _count_labels(config) != 1:
        return None
    path = _find_activation_path(config, files.get(SETTINGS, {}))
    if path is None:
        return None
    name = str(path).rpartition(".")[2]
    if not str(path).startswith("torch.nn.") or name not in ACTIVATIONS:
        raise ValueError(
            f"it is a cross-encoder whose scores are made by {path}, which pipemill can't follow: "
            "set parameters.function_to_apply to sigmoid or none"
        )
    return name


def find_default_activation(files: Mapping[str, Any]) -> str:
    """The function that transformers applies to the logits of a model of one label."""
    regression = files.get(_CONFIG, {}).get("problem_type") == "regression"
    return "Identity" if regression else "Sigmoid"


def check_labels(files: Mapping[str, Any]) -> None:
    """Raises ValueError where a label has no name: the labels are numbered from 0 on."""
    names = files.get(_CONFIG, {}).get("id2label")
    if not isinstance(names, dict):
        return
    for number in range(len(names)):
        if str(number) not in names:
            raise ValueError(
                f"the id2label of its config.json has {len(names)} labels, and none for "
                f"{number}: number them from 0 on"
            )


def _count_labels(config: Mapping[str, Any]) -> int:
    names = config.get("id2label")
    count = config.get("num_labels", 2)
    return len(names) if isinstance(names, dict) else count


def _find_activation_path(config: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """As the newest version of sentence-transformers looks for it."""
    if settings.get("model_type") == "CrossEncoder" and settings.get("activation_fn") is not None:
        return settings["activation_fn"]
    own = config.get("sentence_transformers")
    if isinstance(own, dict) and own.get("activation_fn") is not None:
        return own["activation_fn"]
    return config.get("sbert_ce_default_activation_function")
