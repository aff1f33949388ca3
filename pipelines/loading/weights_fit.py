"""Load a checkpoint's weights by their names, types and shapes, without their values."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..shared_patch import SharedPatch, Step
from .checkpoint import CheckpointError, Tensors, find_weights, read_tensors
from .missing_weights import describe_missing, find_layers_left_out, find_missing_weights
from .model import Model

# torch's names of safetensors' types.
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def find_weights_misfit(loaded: Any, info: Mapping[str, Any], task: str) -> str | None:
    """Return which weights the checkpoint lacks, has in another shape, or has in vain; or None.

    Args:
        loaded: the model.
        info: what transformers returned with it, see `load_without_values`.
        task: the Hugging Face name of the task.
    """
    missing = find_missing_weights(loaded, info["missing_keys"], task)
    if missing:
        return describe_missing(loaded, missing, info["unexpected_keys"])
    if info["mismatched_keys"]:
        return _describe_mismatch(loaded, info["mismatched_keys"])
    return find_layers_left_out(loaded, info["unexpected_keys"])


def read_weights(model: Model, config: Any) -> Tensors:
    """Return what the weights' headers say, on this machine or on the Hub."""
    folder = model.files.folder()
    if folder is not None:
        try:
            files = find_weights(folder, config.to_dict(), pickled=not model.use_safetensors)
            if files[0].suffix == ".safetensors":
                return read_tensors(files)
            return _read_pickled(files)
        except CheckpointError:
            if os.path.isdir(model.path):
                raise
    from huggingface_hub import get_safetensors_metadata

    files = get_safetensors_metadata(model.path, revision=model.revision).files_metadata
    return {
        name: (str(tensor.dtype), tuple(tensor.shape))
        for file in files.values()
        for name, tensor in file.tensors.items()
    }


def _read_pickled(files: list[Path]) -> Tensors:
    import torch

    names = {_find_torch_type(name): name for name in _TYPES}
    found: Tensors = {}
    for file in files:
        # On the meta device nothing but names and shapes is read; and no code is run.
        weights = torch.load(file, map_location="meta", mmap=True, weights_only=True)
        for name, tensor in weights.items():
            found[name] = (names[tensor.dtype], tuple(tensor.shape))
    return found


def load_without_values(
    model_class: Any, config: Any, tensors: Tensors
) -> tuple[Any, Mapping[str, Any]]:
    """Load a model on the meta device, and return it with transformers' `output_loading_info`."""
    import torch

    weights = {
        name: torch.empty(shape, dtype=_find_torch_type(dtype), device="meta")
        for name, (dtype, shape) in tensors.items()
    }
    with _leave_out_values():
        return model_class.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )


def _find_torch_type(name: str) -> Any:
    import torch

    return getattr(torch, _TYPES[name])


@contextmanager
def _leave_out_values() -> Iterator[None]:
    """Keep transformers from asking for values while it loads tensors that have none.

    Other threads may load models with their values meanwhile. Raise KeyError where this
    transformers has no such steps: then there is no verdict.
    """
    with _PATCH.applied():
        _thread.leaves_out = True
        try:
            yield
        finally:
            _thread.leaves_out = False


def _find_steps() -> list[Step]:
    import torch
    from transformers import PreTrainedModel, core_model_loading

    return [
        # transformers calls it in its own threads.
        (core_model_loading, "_materialize_copy", _copy_without_values),
        (PreTrainedModel, "_move_missing_keys_from_meta_to_device", _skip_here),
        (PreTrainedModel, "_initialize_missing_keys", _skip_here),
        (torch, "equal", _wrap_equal),
    ]


_PATCH = SharedPatch(_find_steps)
_thread = threading.local()  # .leaves_out


def _skip_here(usual: Any) -> Any:
    def skip(*given: Any, **named: Any) -> Any:
        if not getattr(_thread, "leaves_out", False):
            return usual(*given, **named)
        return None

    return skip


def _copy_without_values(usual: Any) -> Any:
    def copy(tensor: Any, *given: Any, **named: Any) -> Any:
        if getattr(tensor, "is_meta", False):
            return tensor[...]
        return usual(tensor, *given, **named)

    return copy


def _wrap_equal(usual: Any) -> Any:
    def equal(one: Any, other: Any) -> bool:  # of tied weights that are saved twice
        return one.shape == other.shape if one.is_meta or other.is_meta else usual(one, other)

    return equal


def _describe_mismatch(model: Any, mismatched: Any) -> str:
    name, there, wanted = sorted(mismatched)[0]
    more = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
    return (
        f"the checkpoint's {name} has the shape {tuple(there)}, and {type(model).__name__} needs "
        f"{tuple(wanted)} by config.json{more}: config.json and the weights are of two models"
    )
