"""Measure peak memory."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """The peak memory of what runs inside the block, as `bytes`; None where it can't be measured.

    On a GPU it is the most that was allocated, the model included. On a CPU it is the growth of
    the process's resident memory since the block began, from the high-water mark of Linux.
    """

    def __init__(self, device: Any) -> None:
        self.on_gpu = getattr(device, "type", "cpu") == "cuda"
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.on_gpu:
            sys.modules["torch"].cuda.empty_cache()
            sys.modules["torch"].cuda.reset_peak_memory_stats()
            return self
        _release_freed_memory()
        self.before = None
        try:
            _RESET.write_text("5")
            self.before = _read_high_water_mark()
        except OSError:  # not Linux, or not allowed
            pass
        return self

    def __exit__(self, *exception: object) -> None:
        if self.on_gpu:
            self.bytes = int(sys.modules["torch"].cuda.max_memory_allocated())
        elif self.before is not None:
            self.bytes = max(_read_high_water_mark() - self.before, 0)


def _read_high_water_mark() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} does not say VmHWM")


def _release_freed_memory() -> None:
    """Return freed memory to the system: who reuses it would not grow the process."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
