"""Make a stream of bytes one piece at a time."""

from __future__ import annotations

import io
from typing import IO, Any


class PulledStream(io.RawIOBase):
    """A stream of bytes that a subclass makes from those of another one.

    source: the stream to read; it is closed together with this one.
    """

    def __init__(self, source: IO[bytes] | io.RawIOBase) -> None:
        self.source: Any = source
        self._left = b""

    def _next_piece(self) -> bytes:
        """Return the next bytes; b"" at the end."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = self._next_piece()
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        self.source.close()
        super().close()
