"""JSON files that are no JSON Lines: one array of objects, or objects over several lines."""

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
# An element that has not ended after so much text has lost its end.
_LONGEST = 2**28
_ARRAY = re.compile(rb"\[\s*(\{|\]\s*$)")
# What a line ends with whose object goes on in the next one.
_GOES_ON = re.compile(rb"[\[{,:]\s*$")
_SPACE = re.compile(r"[\s,]*")
_BETWEEN = re.compile(r"\s*")


def is_document(head: bytes, whole: bool) -> bool:
    """Tell, by its first bytes, whether a file holds an array, or objects over several lines.

    whole: whether these are all of its bytes.
    """
    head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"["):
        return bool(_ARRAY.match(head))
    first, newline, _ = head.partition(b"\n")
    if not newline or not head.startswith(b"{") or _is_json(first):
        return False
    text = head.decode("utf-8", "replace")
    try:
        _, end = json.JSONDecoder().raw_decode(text)
        return "\n" in text[:end]
    except RecursionError:
        return False
    except json.JSONDecodeError as error:
        return not whole and bool(_GOES_ON.search(first)) and _is_cut_off(error, len(text))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_cut_off(error: json.JSONDecodeError, length: int) -> bool:
    """Tell whether more text might have made it right."""
    return error.pos > length - 12 or error.msg.startswith("Unterminated string")


class DocumentStream(PulledStream):
    """Such a file as JSON Lines. Raises BadFile where it is no JSON. It can't be seeked in."""

    def __init__(self, stream: IO[bytes] | io.RawIOBase) -> None:
        super().__init__(stream)
        self._lines = self._objects()

    def _next_piece(self) -> bytes:
        return next(self._lines, b"")

    def _objects(self) -> Iterator[bytes]:
        decoder = json.JSONDecoder()
        text = _Text(self._stream)
        inside = False
        while True:
            next_one = text.skip(_SPACE if inside else _BETWEEN)
            if not next_one and inside:
                raise BadFile("the JSON array that it holds has no end")
            if not next_one:
                return
            if next_one == ("]" if inside else "["):
                inside = not inside
                text.place += 1
                continue
            yield self._object(decoder, text)

    def _object(self, decoder: json.JSONDecoder, text: _Text) -> bytes:
        while True:
            try:
                _, end = decoder.raw_decode(text.some, text.place)
                if end < len(text.some) or not text.more():
                    break
            except json.JSONDecodeError as error:
                known = len(text.some) - text.place
                going_on = _is_cut_off(error, len(text.some)) and known < _LONGEST
                if not going_on or not text.more():
                    where = text.passed + error.pos
                    raise BadFile(f"it is no JSON: {error.msg} at character {where}") from None
            except RecursionError:
                raise BadFile("it is no JSON that can be read: nested too deeply") from None
        found = text.some[text.place : end]
        text.place = end
        # Within a string a line's end would be written as \n.
        line = found.replace("\r", " ").replace("\n", " ") + "\n"
        return line.encode("utf-8", "surrogateescape")


class _Text:
    """The text of a stream, as far as it has been read. passed: characters that are gone."""

    def __init__(self, stream: IO[bytes] | io.RawIOBase) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._ended = False
        self.some, self.place, self.passed = "", 0, 0

    def more(self) -> bool:
        """Read at least as much again as is left, so that a long object costs little."""
        if self._ended:
            return False
        wanted = max(_READ, len(self.some) - self.place)
        data = self._stream.read(wanted) or b""
        self._ended = not data
        self.passed += self.place
        self.some = self.some[self.place :] + self._decoder.decode(data, final=self._ended)
        self.place = 0
        return True

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Go to the next character that counts; "" at the end."""
        while True:
            found = pattern.match(self.some, self.place)
            assert found is not None
            self.place = found.end()
            if self.place < len(self.some):
                return self.some[self.place]
            if not self.more():
                return ""
