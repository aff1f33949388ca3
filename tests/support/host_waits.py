"""Find calls that would have the host wait for a GPU, on a machine that has none."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# They return what the host needs to go on: a number, or a shape.
_ASKS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
}
_INDEXES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
_READS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu}
# Of Python's numbers they make a tensor in memory that is not pinned.
_MAKES = {torch.tensor, torch.as_tensor}


class HostWaits:
    """Notes what waits in its block, in this thread.

    Attributes:
        found: the names of the functions that were called.
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def __enter__(self) -> HostWaits:
        self._modes = _Functions(self.found), _Operations(self.found)
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*raised)


class _Functions(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _READS or (func in _MAKES and kwargs.get("device") is not None):
            self.found.append(func.__name__)
        return func(*args, **kwargs)


class _Operations(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func in _INDEXES and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        if func in _ASKS or by_mask:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))
