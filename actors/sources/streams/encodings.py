"""Read files of text in another encoding as UTF-8."""

from __future__ import annotations

import codecs
import io
from typing import IO, Any

from ..bad_file import BadFile, explain_compression
from .pulled_stream import PulledStream

HEAD = 2**16
_READ = 2**18

# UTF-32 first: its byte order mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What can't be decoded becomes a byte that is not UTF-8, so that only its row fails.
_BAD = "\udcff"
codecs.register_error("pipemill", lambda error: (_BAD, error.end))  # type: ignore[attr-defined]


def detect_encoding(head: bytes, named: str | None) -> str | None:
    """Return the encoding of a file, or None for UTF-8. A byte order mark overrides `named`."""
    if head.startswith(codecs.BOM_UTF8):
        return None
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    return named if is_foreign(named) else None


def is_foreign(encoding: str | None) -> bool:
    """Tell whether text in an encoding must be decoded to become UTF-8."""
    return encoding is not None and codecs.lookup(encoding).name not in ("utf-8", "ascii")


def check_is_text(head: bytes) -> None:
    """Raise BadFile for first bytes that are not UTF-8, such as UTF-16 without a mark."""
    if (compression := explain_compression(head)) is not None:
        raise BadFile(compression)
    nulls = head.count(b"\0")
    if not nulls:
        return
    strange = head.decode(errors="replace").count("\ufffd")
    if nulls * 4 > len(head):
        raise BadFile(
            "it is binary, or in UTF-16 without a byte order mark: name its encoding in "
            "input.encoding"
        )
    if strange * 20 > len(head):
        raise BadFile("it is binary, not text")


class DecodedStream(PulledStream):
    """The text of a stream in some encoding, as UTF-8. It can't seek."""

    def __init__(self, stream: IO[bytes] | io.RawIOBase, encoding: str) -> None:
        super().__init__(stream)
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="pipemill")
        self._ended = False

    def _next_piece(self) -> bytes:
        piece = b""
        while not piece and not self._ended:
            data = self.source.read(_READ) or b""
            self._ended = not data
            text = self._decoder.decode(data, final=self._ended)
            piece = text.encode("utf-8", "surrogateescape")
        return piece


class RejoinedStream(io.RawIOBase):
    """A stream after bytes that were already read from it."""

    def __init__(self, head: bytes, stream: IO[bytes] | io.RawIOBase) -> None:
        self._head, self.source = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self.source.read(len(buffer)) or b""
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.source.close()
        super().close()
