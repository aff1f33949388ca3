"""Tell what to do where the machine has no more room, memory, files or processes to give."""

from __future__ import annotations

import errno
import os

_ROOM = "make room there, or where stdout goes, and run again"
_MEMORY = "give the command more memory, or raise its limit (`ulimit -v`), and run again"
_PROCESSES = "raise the limit of processes and threads (`ulimit -u`, or the container's)"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _PROCESSES,
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "the machine has as many open files as it allows; run again later",
}
# What the dynamic linker says of a library for which there is no memory.
_UNMAPPED = ("failed to map segment", "cannot allocate memory")


def advise(error: Exception) -> str | None:
    """Return what to do about an error of a machine's limits; None for another error."""
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, RuntimeError):
        return _PROCESSES if str(error) == "can't start new thread" else None
    if isinstance(error, ImportError) or getattr(error, "errno", 0) is None:  # `ctypes` has none
        return _MEMORY if any(text in str(error).lower() for text in _UNMAPPED) else None
    if not isinstance(error, OSError):
        return None
    # A pipe that can take no more for now has the number of a refused process, and other words.
    if error.errno == errno.EAGAIN and error.strerror != os.strerror(errno.EAGAIN):
        return None
    return _ADVICE.get(error.errno or 0)
