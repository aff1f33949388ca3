"""Pickle a pipeline's inputs and outputs: within a run they travel with the row as bytes."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

from pipemill.errors import error_message

Chunk = tuple[bytes, str]  # pickled inputs, and the row's own settings


def pickle_chunk(value: Any) -> bytes:
    """Return bytes for `pickle.loads`. Tensors take the room of their own numbers only."""
    into = io.BytesIO()
    try:
        _Pickler(into, protocol=5).dump(value)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise TypeError(
            "a step of the pipeline returned what can't be passed on: return numbers, texts, "
            f"tensors, and lists or mappings of these ({error_message(error)})"
        ) from None
    return into.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Pickle a tensor alone: as part of a larger one it would bring all of that along.

        A text's windows are cut from one tensor.
        """
        import torch

        if type(value) is not torch.Tensor or value.device.type != "cpu" or value.requires_grad:
            return NotImplemented
        if value.dtype.is_floating_point and value.dtype.itemsize < 4:  # numpy has no bfloat16
            return value.clone().__reduce_ex__(5)
        return torch.from_numpy, (value.numpy(),)


@dataclass(frozen=True)
class DeferredError:
    """An exception by name: not every exception survives pickling."""

    error: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> DeferredError:
        return cls(type(error).__name__, error_message(error))
