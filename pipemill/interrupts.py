"""Let an interrupt wait for the end of what must not be left halfway."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_S = 0.05
# Python's modules in whose callbacks an exception is dropped.
_CALLBACKS = ("weakref", "_weakrefset")
# What it calls are hooks of libraries (`os.register_at_fork`), in which one is dropped, too. Ray
# starts its processes so, and signals that come meanwhile are handled in the first hook.
_FORK = subprocess.Popen._execute_child.__code__  # type: ignore[attr-defined]
# In these Ray makes its part in C++ of this process, and ends it. One that its part in Python does
# not know, or no longer, ends the process without a word when Ray is started again.
_RAY = ("connect", "shutdown")


@contextmanager
def finish_critical_sections() -> Iterator[None]:
    """Raise an interrupt that comes in a critical section of the block after that section.

    What was imported halfway can't be imported again: torch then ends the process, which in a
    notebook holds all that the user has, and Ray lacks its own modules. A progress bar that is left
    while it takes its lock keeps that for good, and the next run waits for it. In a destructor, a
    callback of a weak reference or a hook of a fork an interrupt would be lost.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield  # Python handles signals in the main thread alone
        return
    before = _count_sections(sys._getframe())
    main = threading.get_ident()
    waiting: dict[int, bool] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        waiting.clear()
        if _count_sections(frame) > before:
            waiting[number] = True
            # Not `threading.Timer`, whose locks the main thread may hold at this moment.
            _thread.start_new_thread(send_again, ())
        else:
            usual(number, frame)

    def send_again() -> None:
        time.sleep(_AGAIN_S)
        if waiting.pop(signal.SIGINT, False):
            # To the main thread, which may wait for a lock by now: a signal wakes it.
            signal.pthread_kill(main, signal.SIGINT)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, usual)
        if waiting.pop(signal.SIGINT, False):
            # By the frame, a block around this one sees that it is in a section.
            usual(signal.SIGINT, sys._getframe())


def _count_sections(frame: FrameType | None) -> int:
    """Return how many critical sections a frame is in."""
    count = 0
    while frame is not None:
        count += _is_critical(frame)
        frame = frame.f_back
    return count


def _is_critical(frame: FrameType) -> bool:
    code, module = frame.f_code, str(frame.f_globals.get("__name__"))
    # Its `contrib` has maps, in which whole downloads run.
    if module.startswith("tqdm.") and not module.startswith("tqdm.contrib."):
        return code.co_name != "__iter__"  # in which the rows of somebody else may be made
    caller = frame.f_back
    if caller is not None and caller.f_code is _FORK:
        return True
    if module == "ray._private.worker" and code.co_name in _RAY:
        return True
    is_import = code.co_filename == "<frozen importlib._bootstrap>"
    return is_import or module in _CALLBACKS or code.co_name == "__del__"
