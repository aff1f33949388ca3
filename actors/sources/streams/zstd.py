"""Zstandard streams with windows of any size, as `zstd --long=31` writes them."""

from __future__ import annotations

from typing import IO, Any

import zstandard

from ..bad_file import BadFile
from .pulled_stream import PulledStream

_READ = 2**18
# 2 GiB, the largest that the zstd tool writes. Most readers refuse more than 128 MiB.
_LARGEST_WINDOW = 2**31


class ZstdStream(PulledStream):
    """The decompressed bytes of one frame or several. Raises EOFError, BadFile.

    held_bytes: of what was decompressed last, to which what follows may refer.
    """

    held_bytes = 0

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self._frame: Any = None
        self._input = b""

    def _next_piece(self) -> bytes:
        while True:
            if not self._input:
                self._input = self.source.read(_READ)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("the file is cut off: its last zstd frame has no end")
                return b""
            if piece := self._decompress():
                return piece

    def _decompress(self) -> bytes:
        if self._frame is None:
            decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
            self._frame = decompressor.decompressobj()
            self.held_bytes = max(self.held_bytes, _find_window(self._input))
        try:
            data = self._frame.decompress(self._input)
        except zstandard.ZstdError as error:
            raise BadFile(f"it is not zstd, or damaged: {error}") from None
        self._input = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
        return data


def _find_window(head: bytes) -> int:
    """Return the bytes of a frame's window; 0 if its first bytes do not tell."""
    try:
        return zstandard.get_frame_parameters(head).window_size
    except zstandard.ZstdError:
        return 0
