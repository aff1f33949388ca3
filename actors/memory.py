"""When memory runs out."""

from __future__ import annotations

import gc
import sys

_SIGNS = ("not enough memory", "out of memory", "can't allocate memory", "ALLOC_FAILED")


class OutOfMemory(BaseException):
    """A micro-batch of several chunks did not fit: none of them is to blame."""


def is_out_of_memory(error: BaseException) -> bool:
    """torch raises an error of its own on a GPU, and a plain RuntimeError on a CPU."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _SIGNS)


def free() -> None:
    """Gives back what the failed micro-batch held."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
