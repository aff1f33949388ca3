"""Streams of bzip2, xz and Zstandard: one frame or several, as parallel tools write them."""

from __future__ import annotations

import bz2
import lzma
from typing import IO, Any

import zstandard

from ..bad_file import BadFile
from .pulled_stream import PulledStream

_READ = 2**16
# 2 GiB, as `zstd --long=31` writes them. Most readers refuse more than 128 MiB.
_LARGEST_WINDOW = 2**31


def _start_zstd() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()


# What decompresses a frame, and the format's name for users, by fsspec's name.
_FORMATS: dict[str, tuple[Any, str]] = {
    "bz2": (bz2.BZ2Decompressor, "bzip2"),
    "xz": (lzma.LZMADecompressor, "xz"),
    "zstd": (_start_zstd, "zstd"),
}
FRAMED = tuple(_FORMATS)
_DAMAGE = (OSError, ValueError, lzma.LZMAError, zstandard.ZstdError)


class FrameStream(PulledStream):
    """The decompressed bytes of all frames. Raises EOFError, BadFile.

    Those of the standard library raise the same errors as a store that does not answer.

    held_bytes: of what was decompressed last, to which what follows may refer.
    """

    def __init__(self, stream: IO[bytes], compression: str) -> None:
        super().__init__(stream)
        self._start, self._name = _FORMATS[compression]
        self._frame: Any = None
        self._input = b""
        self.held_bytes = 0

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
            if self._name != "zstd":
                piece = piece.lstrip(b"\0")  # between two frames of xz
            if not piece:
                return b""
            self._frame = self._start()
            if self._name == "zstd":
                self.held_bytes = max(self.held_bytes, _find_window(piece))
        try:
            data: bytes = self._frame.decompress(piece)
        except _DAMAGE as error:
            raise BadFile(f"it is not {self._name}, or damaged: {error}") from None
        if self._frame.eof:
            self._input, self._frame = self._frame.unused_data, None
        return data


def _find_window(head: bytes) -> int:
    """Return the bytes of a zstd frame's window; 0 if its first bytes do not tell."""
    try:
        return zstandard.get_frame_parameters(head).window_size
    except zstandard.ZstdError:
        return 0
