"""Streams that can't seek, kept where the rows of a split end: others of the file begin there.

A compressed file is read from its start for each split otherwise, which takes a time that grows
with the square of its size.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import IO

# In a process, of which each thread reads a split.
_MOST = 4


@dataclass
class Place:
    """A stream of lines, and where it is.

    position: the bytes before, which end with a line.
    number: how many lines these are.
    """

    stream: IO[bytes]
    position: int = 0
    number: int = 0


_kept: list[tuple[Hashable, Place]] = []
_lock = threading.Lock()


def take_place(file: Hashable, start: int) -> Place | None:
    """Return the kept stream of a file that is the nearest before a byte; it is the caller's."""
    with _lock:
        fit = [i for i, (key, one) in enumerate(_kept) if key == file and one.position <= start]
        if not fit:
            return None
        return _kept.pop(max(fit, key=lambda i: _kept[i][1].position))[1]


def keep_place(file: Hashable, place: Place) -> None:
    """Keep a stream of a file; the oldest one is closed if there are too many."""
    with _lock:
        _kept.append((file, place))
        dropped = _kept.pop(0)[1] if len(_kept) > _MOST else None
    if dropped is not None:
        dropped.stream.close()
