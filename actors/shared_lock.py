"""A lock that several calls share, or one call holds alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """A lock that several calls share, or one call holds alone.

    A call that waits to be alone goes before those that would share.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._users = self._waiting = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with other calls."""
        with self._turn:
            self._turn.wait_for(lambda: not self._alone and not self._waiting)
            self._users += 1
        try:
            yield
        finally:
            with self._turn:
                self._users -= 1
                self._turn.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock alone, once no other call holds it."""
        with self._turn:
            self._waiting += 1
            self._turn.wait_for(lambda: not self._alone and not self._users)
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._turn:
                self._alone = False
                self._turn.notify_all()
