"""Read and skip a number of bytes, in streams that can seek and in those that can't."""

from __future__ import annotations

import io
from typing import IO

_READ = 2**20
_COUNTED = 8 * 2**20


def read_up_to(stream: IO[bytes] | io.RawIOBase, count: int) -> bytes:
    """Return the next `count` bytes, fewer only at the end of the stream."""
    parts = []
    while count > 0 and (part := stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def counts_lines(path: str, start: int, stream: IO[bytes]) -> bool:
    """Tell whether the lines before a byte are counted, so that messages can name a line.

    They are where the bytes are read anyway, and where that takes some milliseconds.
    """
    return not stream.seekable() or ("://" not in path and start <= _COUNTED)


def skip_bytes(stream: IO[bytes], position: int, now: int, counts: bool = False) -> int:
    """Go on to byte `position` from byte `now`.

    Return how many lines end among the bytes that were read for it; 0 where none were.

    counts: whether the bytes are read also if the stream can seek.
    """
    if stream.seekable() and not counts:
        stream.seek(position)
        return 0
    ends, count = 0, position - now
    while count > 0 and (data := stream.read(min(count, _READ))):
        count -= len(data)
        ends += data.count(b"\n")
    return ends
