"""Recognize errors about memory, and release what can be released."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterable

from pipemill.errors import error_message

from ..batch import Failure

# In messages of torch on a GPU, of torch, oneDNN and C++ on a CPU, and of cuBLAS; lower case.
SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
    "bad_alloc",
    "alloc_failed",
)

# The names of the classes that torch raises for it.
_CLASSES = ("OutOfMemoryError", "AcceleratorError", "RuntimeError")

_MMAP_THRESHOLD = -3  # of mallopt(3): blocks of at least this size are mapped one by one
_LARGE = 2**18  # with 4 MiB, rows that fit failed near the limit


class OutOfMemory(BaseException):
    """A micro-batch of several chunks did not fit in memory; none of them is at fault."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out.

    torch raises a special error on a GPU, and a plain RuntimeError on a CPU.
    """
    if isinstance(error, RuntimeError):  # others may quote a row that mentions memory
        return any(sign in error_message(error).lower() for sign in SIGNS)
    return isinstance(error, MemoryError)


def find_memory_failure(failures: Iterable[Failure]) -> Failure | None:
    """Return a failure of rows that did not fit in memory, even alone; None if there is none."""
    for failure in failures:
        memory = any(sign in failure.message.lower() for sign in SIGNS)
        if failure.error == "MemoryError" or (memory and failure.error in _CLASSES):
            return failure
    return None


def empty_caches() -> None:
    """Free what is no longer referenced, also on the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def release_memory() -> None:
    """Return freed memory to the system, now and from now on, after a micro-batch did not fit.

    glibc keeps freed blocks of up to 32 MiB in its heaps, where they fragment the memory; then a
    model that had room for a thousand tokens has no room for one. A model of width 384 loses about
    14 % of its speed by this.
    """
    empty_caches()
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.malloc_trim(0)
