"""Ask Linux for large pages: a step reads all keys and values, more than caches and TLBs hold."""

from __future__ import annotations

import ctypes
import functools
import mmap
from typing import Any

import torch

_HUGE = 2 * 2**20


def make_zeros(like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return zeros of the dtype and on the device of a tensor, on large pages where there are any.

    The advice is for whole pages of 2 MiB. Where the system does not take it, nothing changes.
    """
    made = like.new_empty(shape)
    advise = _find_madvise() if made.device.type == "cpu" else None
    if advise is not None:
        first = -(-made.data_ptr() // _HUGE) * _HUGE
        length = (made.data_ptr() + made.nbytes - first) // _HUGE * _HUGE
        if length > 0:
            advise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)
    return made.zero_()


@functools.cache
def _find_madvise() -> Any:
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # of Linux
        return None
    return getattr(ctypes.CDLL(None), "madvise", None)
