"""Streams of bzip2 and of xz, one or several in a file, as `cat` and parallel tools write them."""

from __future__ import annotations

import bz2
import lzma
from typing import IO

from ..bad_file import BadFile
from .pulled_stream import PulledStream

_READ = 2**16
_FORMATS = {"bz2": (bz2.BZ2Decompressor, "bzip2"), "xz": (lzma.LZMADecompressor, "xz")}


class FrameStream(PulledStream):
    """The decompressed bytes of all frames. Raises EOFError, BadFile.

    Those of the standard library raise the same errors as a store that does not answer.
    """

    def __init__(self, stream: IO[bytes], compression: str) -> None:
        super().__init__(stream)
        self._make, self._name = _FORMATS[compression]
        self._frame: bz2.BZ2Decompressor | lzma.LZMADecompressor | None = None
        self._input = b""

    def _next_piece(self) -> bytes:
        while piece := self._input or self.source.read(_READ):
            self._input = b""
            if data := self._decompress(piece):
                return data
        if self._frame is not None:
            raise EOFError(f"the file is cut off: its last {self._name} frame has no end")
        return b""

    def _decompress(self, piece: bytes) -> bytes:
        if self._frame is None:
            piece = piece.lstrip(b"\0")  # between two frames of xz
            if not piece:
                return b""
        frame = self._frame = self._frame or self._make()
        try:
            data = frame.decompress(piece)
        except (OSError, ValueError, lzma.LZMAError) as error:
            raise BadFile(f"it is not {self._name}, or damaged: {error}") from None
        if frame.eof:
            self._input, self._frame = frame.unused_data, None
        return data
