"""Let an interrupt wait for the end of an import."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_S = 0.05


@contextmanager
def finish_imports() -> Iterator[None]:
    """Within it, an interrupt that comes during an import is raised after it.

    What was imported halfway can't be imported again: torch then ends the process, which in a
    notebook holds all that the user has, and Ray lacks its own modules.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield  # Python handles signals in the main thread alone
        return
    before = _count_imports(sys._getframe())
    waiting: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        waiting.clear()
        if _count_imports(frame) > before:
            waiting.append(number)
            # Not `threading.Timer`, whose locks the main thread may hold at this moment.
            _thread.start_new_thread(send_again, ())
        else:
            usual(number, frame)

    def send_again() -> None:
        time.sleep(_AGAIN_S)
        if waiting:
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, usual)
        if waiting:
            waiting.clear()
            usual(signal.SIGINT, None)


def _count_imports(frame: FrameType | None) -> int:
    """Return how many imports a frame is in."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        frame = frame.f_back
    return count
