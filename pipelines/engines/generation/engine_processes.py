"""The processes in which an engine computes, which must not outlive this one, nor end unseen."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

# Seconds that a process that was killed takes at most to give its memory back.
_END_S = 10
# Kills processes when its input ends, which it does however the process at its other end ends.
_KILL_AT_END = """
import os, signal, sys
files = []
for process in sys.argv[1:]:
    try:
        files.append(os.pidfd_open(int(process)))
    except ProcessLookupError:
        pass
sys.stdin.read()
for file in files:
    try:
        signal.pidfd_send_signal(file, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


@contextmanager
def note_processes() -> Iterator[list[BaseProcess]]:
    """Yield a list; after the block it holds the processes that `multiprocessing` started in it."""
    others = multiprocessing.active_children()
    started: list[BaseProcess] = []
    yield started
    started += [one for one in multiprocessing.active_children() if one not in others]


def end_with(owner: object, processes: list[BaseProcess], stop: Callable[[], object]) -> None:
    """End processes when their owner is freed, or when this process ends, however it does.

    They would go on, and keep the memory of the GPU.

    stop: ends them where the owner is freed.
    """
    if processes:
        numbers = [str(process.pid) for process in processes]
        command = [sys.executable, "-S", "-c", _KILL_AT_END, *numbers]
        watch = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        weakref.finalize(owner, _end, processes, stop, watch)


def _end(
    processes: list[BaseProcess], stop: Callable[[], object], watch: subprocess.Popen[bytes]
) -> None:
    """End processes, and wait until they have: another engine may need their memory."""
    with suppress(Exception):
        stop()
    with suppress(OSError):
        watch.communicate()  # closes its input: what has not ended is killed
    for process in processes:
        process.join(_END_S)


def tell_end(processes: list[BaseProcess], tell: Callable[[BaseException], object]) -> None:
    """Call `tell` with an error when one of the processes ends: who asks it may wait forever."""

    def watch() -> None:
        wait([process.sentinel for process in processes])
        tell(ChildProcessError("its process ended"))

    if processes:
        threading.Thread(target=watch, daemon=True).start()
