"""What a pipeline makes of a row, as bytes that travel with the row: pickled within a run."""

from __future__ import annotations

import io
import pickle
from typing import Any


def pickle_chunk(value: Any) -> bytes:
    """To be read by `pickle.loads`. Tensors take the room of their own numbers only."""
    into = io.BytesIO()
    _Pickler(into, protocol=5).dump(value)
    return into.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """A tensor that is a part of a larger one would bring all of that along: a text's windows
        are cut from one tensor."""
        import torch

        if type(value) is not torch.Tensor or value.device.type != "cpu" or value.requires_grad:
            return NotImplemented
        if value.dtype.is_floating_point and value.dtype.itemsize < 4:  # numpy has no bfloat16
            return value.clone().__reduce_ex__(5)
        return torch.from_numpy, (value.numpy(),)
