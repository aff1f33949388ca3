"""Streams that seek slowly, kept where the rows of a split end: others of the file begin there.

A compressed file is read from its start for each split otherwise, which takes a time that grows
with the square of its size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from ...storage.file_names import find_compression, find_member
from ...storage.filesystem import open_filesystem
from ...storage.input_file import InputFile
from ...storage.shared_archive import find_archive_number

# In a process, of which each thread reads a split; and the most bytes that they hold for it, such
# as the last 2 GiB of what `zstd --long=31` packed. One is kept in any case.
_MOST, _MOST_BYTES = 4, 2**30
_ZIP = "zip://"


@dataclass
class Place:
    """A stream of rows, and where it is.

    position: the bytes before, which end with a row.
    number: how many lines end in these.
    header: what the file begins with, if its format reads that first.
    stays: whether the stream is kept when its reader is done.
    is_old: whether it was kept before.
    after: a byte up to `position`, if no row begins between them; None if that is not known.
    """

    stream: IO[bytes]
    position: int = 0
    number: int = 0
    header: Any = None
    stays: bool = False
    is_old: bool = False
    after: int | None = None

    def is_before(self, start: int) -> bool:
        """Tell whether no row that begins at a byte or later was passed."""
        return (self.position if self.after is None else self.after) <= start


class StreamEnded(ConnectionError):
    """A kept stream can't be read further; a new one may be: it was open for a while."""


_kept: list[tuple[Hashable, Place]] = []
_lock = threading.Lock()


def seeks_slowly(path: str, stream: IO[bytes]) -> bool:
    """Tell whether a stream of a file reads on to get to another place."""
    return find_compression(path) is not None or path.startswith(_ZIP) or not stream.seekable()


def identify(file: InputFile, options: Mapping[str, Any]) -> Hashable | None:
    """Return what no other file has that a path leads to; None if nobody knows which one it is."""
    if find_member(file.path) == file.path:
        return (file, repr(options)) if file.version else None
    archive, _ = open_filesystem(file.path, options)
    return file, repr(options), find_archive_number(archive)


@contextmanager
def place_before(
    file: Hashable | None, how: Hashable, start: int, begin: Callable[[], Place]
) -> Iterator[Place]:
    """Yield the kept place of a file that is the nearest before a byte, or a new one.

    file: as `identify` returns it; None keeps nothing.
    how: how the file is read.
    begin: makes a place that is before the byte.

    Raises StreamEnded for any error of a kept stream. No other one of the file is kept then.
    """
    place = _take((file, how), start) or begin()
    stays, place.stays = False, False
    try:
        yield place
        stays = place.stays and file is not None
    except Exception as error:
        if place.is_old:
            _close(lambda key: key == (file, how))
            raise StreamEnded(f"{type(error).__name__}: {error}") from error
        raise
    finally:
        if stays:
            _keep((file, how), place)
        else:
            place.stream.close()


def close_kept_streams() -> None:
    """Close all streams that this process keeps."""
    _close(lambda key: True)


def _close(is_wrong: Callable[[Hashable], bool]) -> None:
    with _lock:
        dropped = [place for key, place in _kept if is_wrong(key)]
        _kept[:] = [one for one in _kept if not is_wrong(one[0])]
    for place in dropped:
        place.stream.close()


def _take(file: Hashable, start: int) -> Place | None:
    with _lock:
        fit = [i for i, (key, one) in enumerate(_kept) if key == file and one.is_before(start)]
        if not start or not fit:
            return None
        return _kept.pop(max(fit, key=lambda i: _kept[i][1].position))[1]


def _keep(file: Hashable, place: Place) -> None:
    """Keep a stream of a file; the oldest ones are closed if there are too many."""
    dropped, place.is_old = [], True
    with _lock:
        _kept.append((file, place))
        while len(_kept) > 1 and (len(_kept) > _MOST or _count_held_by_all() > _MOST_BYTES):
            dropped.append(_kept.pop(0)[1])
    for one in dropped:
        one.stream.close()


def _count_held_by_all() -> int:
    return sum(_count_held_bytes(place.stream) for _, place in _kept)


def _count_held_bytes(stream: Any) -> int:
    """Return how many bytes a stream says that it holds, or the one that it reads."""
    while stream is not None:
        if (held := getattr(stream, "held_bytes", None)) is not None:
            return int(held)
        stream = getattr(stream, "raw", None) or getattr(stream, "source", None)
    return 0
