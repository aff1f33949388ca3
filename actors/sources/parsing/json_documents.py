"""Read JSON files that are not JSON Lines: one array, or objects over several lines."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import IO

from ..bad_file import BadFile
from ..streams.pulled_stream import PulledStream

_READ = 2**18
# An element that is longer than this has lost its end.
_LONGEST = 2**28
_ARRAY = re.compile(rb"\[\s*(\{|\]\s*$)")
# The end of a line whose object continues in the next one.
_CONTINUES = re.compile(rb"[\[{,:]\s*$")
_SPACE = re.compile(r"[\s,]*")
_BETWEEN = re.compile(r"\s*")
# Finds where values end. Python refuses to make a whole number of thousands of digits.
_DECODER = json.JSONDecoder(parse_int=float)


def is_document(head: bytes, is_complete: bool) -> bool:
    """Tell by its first bytes whether a file holds an array, or objects over several lines.

    is_complete: whether these are all bytes of the file.
    """
    head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"["):
        return bool(_ARRAY.match(head))
    first, newline, _ = head.partition(b"\n")
    if not newline or not head.startswith(b"{") or _is_json(first):
        return False
    text = head.decode("utf-8", "replace")
    try:
        _, end = _DECODER.raw_decode(text)
        return "\n" in text[:end]
    except RecursionError:
        return False
    except json.JSONDecodeError as error:
        return not is_complete and bool(_CONTINUES.search(first)) and _is_cut_off(error, len(text))


def _is_json(line: bytes) -> bool:
    try:
        _DECODER.decode(line.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _is_cut_off(error: json.JSONDecodeError, length: int) -> bool:
    """Tell whether the error may be due to missing text."""
    return error.pos > length - 12 or error.msg.startswith("Unterminated string")


class DocumentStream(PulledStream):
    """The elements of such a file as JSON Lines. It can't seek. Raises BadFile for invalid JSON."""

    def __init__(self, stream: IO[bytes] | io.RawIOBase) -> None:
        super().__init__(stream)
        self._lines = self._parse_elements()

    def _next_piece(self) -> bytes:
        return next(self._lines, b"")

    def _parse_elements(self) -> Iterator[bytes]:
        text = _Text(self.source)
        inside = False
        while True:
            next_one = text.skip(_SPACE if inside else _BETWEEN)
            if not next_one and inside:
                raise BadFile("its JSON array has no end")
            if not next_one:
                return
            if next_one == ("]" if inside else "["):
                inside = not inside
                text.position += 1
                continue
            yield self._parse_element(text)

    def _parse_element(self, text: _Text) -> bytes:
        while True:
            try:
                _, end = _DECODER.raw_decode(text.buffer, text.position)
                if end < len(text.buffer) or not text.read_more():
                    break
            except json.JSONDecodeError as error:
                known = len(text.buffer) - text.position
                may_continue = _is_cut_off(error, len(text.buffer)) and known < _LONGEST
                if not may_continue or not text.read_more():
                    where = text.dropped + error.pos
                    what = error.msg.removesuffix(" at")
                    raise BadFile(f"it is not JSON: {what} at character {where}") from None
            except RecursionError:
                raise BadFile("it is JSON that is nested too deeply") from None
        element = text.buffer[text.position : end]
        text.position = end
        # In a string, a newline would be escaped.
        line = element.replace("\r", " ").replace("\n", " ") + "\n"
        return line.encode("utf-8", "surrogateescape")


class _Text:
    """The text of a stream, as far as it was read.

    buffer: the text that is kept. position: the next character in it.
    dropped: the number of characters before the buffer.
    """

    def __init__(self, stream: IO[bytes] | io.RawIOBase) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._ended = False
        self.buffer, self.position, self.dropped = "", 0, 0

    def read_more(self) -> bool:
        """Read at least as much as is left, so that a long object is not decoded too often."""
        if self._ended:
            return False
        count = max(_READ, len(self.buffer) - self.position)
        data = self._stream.read(count) or b""
        self._ended = not data
        self.dropped += self.position
        self.buffer = self.buffer[self.position :] + self._decoder.decode(data, final=self._ended)
        self.position = 0
        return True

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Go past the pattern; return the next character, or "" at the end."""
        while True:
            match = pattern.match(self.buffer, self.position)
            assert match is not None
            self.position = match.end()
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            if not self.read_more():
                return ""
