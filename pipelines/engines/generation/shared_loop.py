"""Let several threads have their texts written by one loop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pipemill.actors.faults.watchdog import mark_progress, wait_on

_WAIT_S = 0.05


class SharedLoop:
    """Computes steps in the thread of one caller for all callers.

    When that caller has what it waits for, another one goes on.
    """

    def __init__(self) -> None:
        self._computes = threading.Lock()
        self._ended = threading.Condition()

    def run(self, step: Callable[[], None], is_done: Callable[[], bool]) -> None:
        """Return when `is_done`, which steps bring about: those of this thread, or of others."""
        seen = -1
        while not is_done():
            if self._computes.acquire(blocking=False):
                try:
                    while not is_done():
                        step()
                        mark_progress()
                finally:
                    self._computes.release()
                    with self._ended:
                        self._ended.notify_all()
                continue
            with self._ended:
                self._ended.wait(_WAIT_S)
            seen = wait_on(seen)  # for the thread that computes, or one that it waits for
