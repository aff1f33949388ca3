"""Several chunks of equal shape as one input of a model, and its output as several again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

# A chunk's size where it holds no token ids: its numbers, in image patches of 16 x 16 x 3.
_VALUES_PER_TOKEN = 768
_CLOSE = 1e-4


def size_of(inputs: Any) -> int:
    """In tokens, or in what costs about as much as one."""
    if isinstance(inputs, Mapping) and "input_ids" in inputs:
        return max(int(inputs["input_ids"].numel()), 1)
    return max(max(_counts(inputs), default=1) // _VALUES_PER_TOKEN, 1)


def group_of(inputs: Any, settings: str) -> int:
    """A number that chunks have in common only if they might share a forward pass."""
    text = repr((_shapes(inputs), settings)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)


def stack(inputs: list[Any]) -> dict[str, Any]:
    """Inputs of equal shape as one: tensors joined on their first axis, the rest as lists."""
    import torch

    return {
        name: torch.cat([one[name] for one in inputs])
        if isinstance(value, torch.Tensor)
        else [one[name] for one in inputs]
        for name, value in inputs[0].items()
    }


def unstack(outputs: Any, count: int) -> list[Any]:
    """The reverse, for what `_forward` returned; the model's caches are left behind."""
    import torch
    from transformers.utils import ModelOutput

    singles: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, value in outputs.items():
        if isinstance(value, torch.Tensor | list) and len(value) == count:
            for i, single in enumerate(singles):
                # A slice that is kept whole keeps its siblings alive: copy it.
                single[name] = (
                    value[i : i + 1].clone() if isinstance(value, torch.Tensor) else value[i]
                )
        elif value is None:
            for single in singles:
                single[name] = None
    if isinstance(outputs, ModelOutput):
        return [type(outputs)(**single) for single in singles]
    return list(singles)


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal, but for the last digits of their numbers."""
    import numpy as np
    import torch

    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        one, other = one.float().cpu().numpy(), other.float().cpu().numpy()
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and np.allclose(one, other, _CLOSE, _CLOSE, equal_nan=True)
    if isinstance(one, float | np.floating):
        return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE) or one != one
    return one == other


def _counts(value: Any) -> list[int]:
    if hasattr(value, "numel"):
        return [int(value.numel())]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [n for v in value for n in _counts(v)] if isinstance(value, list | tuple) else []


def _shapes(value: Any) -> Any:
    if hasattr(value, "numel"):
        return tuple(value.shape), str(value.dtype)
    if isinstance(value, Mapping):
        return {name: _shapes(inner) for name, inner in value.items()}
    return type(value).__name__
