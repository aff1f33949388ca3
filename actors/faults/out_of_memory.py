"""When memory runs out."""

from __future__ import annotations

import ctypes
import gc
import sys

from pipemill.errors import error_message

# Of torch on a GPU, of torch, oneDNN and C++ on a CPU, of cuBLAS; in lower case.
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

_MMAP_THRESHOLD = -3  # of mallopt(3): blocks of at least so many bytes are mapped one by one
_LARGE = 2**18  # with 4 MiB rows that fit died nearer to the limit


class OutOfMemory(BaseException):
    """A micro-batch of several chunks did not fit: none of them is to blame."""


def is_out_of_memory(error: BaseException) -> bool:
    """torch raises an error of its own on a GPU, and a plain RuntimeError on a CPU."""
    if isinstance(error, RuntimeError):  # others may quote a row that speaks of memory
        return any(sign in error_message(error).lower() for sign in SIGNS)
    return isinstance(error, MemoryError)


def empty_caches() -> None:
    """Gives back what nobody holds any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def release_memory() -> None:
    """Gives back what the failed micro-batch held: to the system, now and from now on.

    glibc keeps freed blocks of up to 32 MiB in its heaps, where they are in the way of larger ones;
    then a model that had room for a thousand tokens finds none for one. A model of width 384 pays
    for it with some 14 % of its speed.
    """
    empty_caches()
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.malloc_trim(0)
