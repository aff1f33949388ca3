"""Read and skip a number of bytes, in streams that can seek and in those that can't."""

from __future__ import annotations

import io
from typing import IO

_READ = 2**20


def read_up_to(stream: IO[bytes] | io.RawIOBase, count: int) -> bytes:
    """Return the next `count` bytes, fewer only at the end of the stream."""
    parts = []
    while count > 0 and (part := stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def skip_bytes(stream: IO[bytes], count: int) -> int:
    """Go to byte `count`, or on by `count` bytes in a stream that can't seek.

    Return how many lines end among the bytes that were read for it; 0 where none were.
    """
    if stream.seekable():
        stream.seek(count)
        return 0
    ends = 0
    while count > 0 and (data := stream.read(min(count, _READ))):
        count -= len(data)
        ends += data.count(b"\n")
    return ends
