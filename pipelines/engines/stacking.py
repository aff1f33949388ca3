"""Several chunks of equal shape as one input of a model, and its output as several again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# A chunk's size where it holds no token ids: its numbers, in image patches of 16 x 16 x 3.
_VALUES_PER_TOKEN = 768
# How far two answers may be apart by rounding. What a model returns in 16 bits, or on a GPU, may be
# further apart, by these shares of the largest number.
CLOSE, ROUNDED, ROUNDED_ON_GPU = 1e-4, 0.05, 0.005
# So far apart are numbers of about the same size, in whatever order.
ALIKE = 0.5
# From here on, numbers may stand for infinity, as those of a mask do, and count for no others.
_HUGE = 1e4


def chunk_size(inputs: Any) -> int:
    """Return a chunk's size in tokens, or in what costs about as much as one."""
    if isinstance(inputs, Mapping) and inputs.get("input_ids") is not None:
        return max(int(inputs["input_ids"].numel()), 1)
    return max(max(_list_counts(inputs), default=1) // _VALUES_PER_TOKEN, 1)


def batch_group(inputs: Any, settings: str, pads: bool = False) -> int:
    """Return a number that is equal for chunks that might share a forward pass.

    Args:
        inputs: a chunk, as `_forward` takes it.
        settings: the row's own parameters, as far as the forward pass depends on them.
        pads: whether chunks of unequal length may share a forward pass.
    """
    text = repr((sorted(inputs) if pads else _list_shapes(inputs), settings)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)


def stack(inputs: list[Any]) -> dict[str, Any]:
    """Join inputs of equal shape: tensors on their first axis, all else as lists."""
    import torch

    several = {name: [one[name] for one in inputs] for name in inputs[0]}
    return {
        name: torch.cat(values) if all(isinstance(v, torch.Tensor) for v in values) else values
        for name, values in several.items()
    }


def unstack(outputs: Any, count: int) -> list[Any]:
    """Split what `_forward` returned for several inputs.

    Values that don't have one part for each input are left out: a model's caches, and its loss.
    """
    return [_take_part(outputs, i, count) for i in range(count)]


class _Absent:
    """Stands for a value that does not have one part for each input."""


def _take_part(value: Any, i: int, count: int) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        # A slice that is kept whole keeps its siblings alive: copy it.
        return value[i : i + 1].clone() if value.dim() and len(value) == count else _Absent
    if isinstance(value, list):
        return value[i] if len(value) == count else _Absent
    if isinstance(value, Mapping):
        parts = {name: _take_part(inner, i, count) for name, inner in value.items()}
        return _make_like(value, {k: v for k, v in parts.items() if v is not _Absent})
    if isinstance(value, tuple):
        several = [_take_part(inner, i, count) for inner in value]
        return tuple(v for v in several if v is not _Absent)
    return None if value is None else _Absent


def _make_like(value: Any, items: dict[str, Any]) -> Any:
    """Return the items, in the value's class if that is one of transformers' outputs."""
    from transformers.utils import ModelOutput

    if not isinstance(value, ModelOutput):
        return items
    # Not by its constructor: pipelines add items that are not fields of the class.
    output_class: Any = type(value)
    like = output_class.__new__(output_class)
    for name in getattr(value, "__dataclass_fields__", ()):
        object.__setattr__(like, name, None)
    for name, item in items.items():
        like[name] = item
    return like


def to_float32(output: Any) -> Any:
    """Return what `_forward` returned, with numbers of 16 bits as float32.

    Pipelines shape their answers by numpy, which has no bfloat16.
    """
    import torch

    if isinstance(output, torch.Tensor):
        short = output.is_floating_point() and output.dtype.itemsize == 2
        return output.float() if short else output
    if isinstance(output, Mapping):
        return _make_like(output, {name: to_float32(inner) for name, inner in output.items()})
    if isinstance(output, list):
        return [to_float32(inner) for inner in output]
    return tuple(map(to_float32, output)) if type(output) is tuple else output


def answers_equal(one: Any, other: Any, close: float = CLOSE) -> bool:
    """Tell whether two answers are equal, but for the last digits of their numbers.

    close: more than `CLOSE` for what a model returns; then a few tokens may be others, too.
    """
    import numpy as np
    import torch

    if is_dataclass(one) and not isinstance(one, Mapping):
        one, other = vars(one), vars(other)
    if isinstance(one, Mapping):
        # Of what a model returns, `unstack` leaves some out.
        alike = one.keys() == other.keys() or (close > CLOSE and one.keys() <= other.keys())
        return alike and all(answers_equal(one[k], other[k], close) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(
            answers_equal(*pair, close) for pair in zip(one, other, strict=True)
        )
    if isinstance(one, torch.Tensor):
        one, other = one.float().cpu().numpy(), other.float().cpu().numpy()
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and _are_numbers_equal(one, other, close)
    if hasattr(one, "getdata"):
        return _are_pictures_equal(one, other)
    if isinstance(one, float | np.floating):
        return math.isclose(one, other, rel_tol=close, abs_tol=close) or one != one
    return one == other


def _are_numbers_equal(one: np.ndarray, other: np.ndarray, close: float) -> bool:
    import numpy as np

    if close == CLOSE or not one.size:
        return np.allclose(one, other, close, close, equal_nan=True)
    if close == ALIKE:
        one, other = np.sort(one, axis=None), np.sort(other, axis=None)
    if (one == one.round()).all():  # tokens
        return bool((one == other).mean() >= 1 - close)
    huge = ~(np.abs(other) < _HUGE)
    if not np.allclose(one[huge], other[huge], close, 0, equal_nan=True):
        return False
    one, other = one[~huge], other[~huge]
    if not one.size:
        return True
    apart, size = np.abs(one - other), np.abs(other)
    if not apart.max() <= close * size.max():
        return False
    # A few numbers of a hidden state may be a thousand times larger than others: without them, the
    # mean tells how far the others are apart.
    usual = size <= 10 * size.mean()
    return bool(apart[usual].mean() <= 2 * close * size[usual].mean())


def _are_pictures_equal(one: Any, other: Any) -> bool:
    """Tell whether two pictures differ by rounding alone, at the edge of a level or mask."""
    import numpy as np

    if one.size != other.size or one.mode != other.mode:
        return False
    difference = np.abs(np.asarray(one).astype(float) - np.asarray(other).astype(float))
    return bool(difference.mean() < 0.25)


def _list_counts(value: Any) -> list[int]:
    if hasattr(value, "numel"):
        return [int(value.numel())]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [n for v in value for n in _list_counts(v)] if isinstance(value, list | tuple) else []


def _list_shapes(value: Any) -> Any:
    if hasattr(value, "numel"):
        return tuple(value.shape), str(value.dtype)
    if isinstance(value, Mapping):
        return {name: _list_shapes(inner) for name, inner in value.items()}
    return type(value).__name__


def copy_kwargs(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of keywords: some pipelines write into the dictionaries they are given."""
    return {k: dict(v) if isinstance(v, dict) else v for k, v in keywords.items()}
