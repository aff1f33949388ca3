"""Replace functions of a library for a while, in a process whose other threads use it, too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# An owner, the name of its function, and how to make what replaces this one.
Step = tuple[Any, str, Callable[[Any], Any]]


class SharedPatch:
    """Functions that are replaced while any thread is inside `applied`.

    What replaces one runs in other threads, too, and there must do what the usual one does. If
    each thread put back what it had found, one could put back what another had replaced: it would
    stay for good.
    """

    def __init__(self, find_steps: Callable[[], list[Step]]) -> None:
        self._find_steps = find_steps
        self._lock = threading.Lock()
        self._blocks = 0
        self._before: list[tuple[Any, str, Any]] = []

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Raise KeyError where the library has no such function."""
        with self._lock:
            if not self._blocks:
                steps = self._find_steps()
                self._before = [(owner, name, vars(owner)[name]) for owner, name, _ in steps]
                for (owner, name, make), (_, _, usual) in zip(steps, self._before, strict=True):
                    setattr(owner, name, make(usual))
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                for owner, name, usual in () if self._blocks else self._before:
                    setattr(owner, name, usual)
