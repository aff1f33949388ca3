"""How much memory something takes at most."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Of what runs within it, in `bytes`; None where it can't be measured.

    On a GPU the most that was allocated, the model included. On a CPU the growth of the
    process's resident memory over what it was before, from Linux's own high-water mark.
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
        _give_back()
        self.before = None
        try:
            _RESET.write_text("5")
            self.before = _resident("VmHWM")
        except OSError:  # not Linux, or not allowed
            pass
        return self

    def __exit__(self, *exception: object) -> None:
        if self.on_gpu:
            self.bytes = int(sys.modules["torch"].cuda.max_memory_allocated())
        elif self.before is not None:
            self.bytes = max(_resident("VmHWM") - self.before, 0)


def _resident(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} does not say {name}")


def _give_back() -> None:
    """Freed memory that the C library keeps would hide the growth of whoever uses it next."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
