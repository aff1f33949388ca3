"""Tell a process from a later one with the same number.

Process numbers are reused: after a restart a container's first process is number 1 again.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

import psutil


def process_identity(pid: int) -> str | None:
    """Return a text that no other process on this machine ever has; None if there is no such
    process, or its start is hidden."""
    start = process_start(pid)
    return f"{boot_id()}/{pid}/{start}" if start else None


def process_start(pid: int) -> str | None:
    """Return when a process started, "" if that is hidden; None if there is no such process.

    On Linux it is the kernel's clock ticks since the boot, which do not change with the system's
    clock as the time of day does.
    """
    try:
        process = psutil.Process(pid)
        # A zombie was killed, and only waits for its parent to ask.
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        if sys.platform != "linux":
            return f"{process.create_time():.3f}"
        booted = psutil.boot_time()
        return str(round((process.create_time() - booted) * os.sysconf("SC_CLK_TCK")))
    except psutil.ZombieProcess:
        return None
    except psutil.NoSuchProcess:
        return "" if _is_hidden(pid) else None
    except psutil.AccessDenied:
        return ""


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return what differs after each start of the machine; "" where only Linux would say it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _is_hidden(pid: int) -> bool:
    """Return whether a process exists that another user must not see (Linux's `hidepid`)."""
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
