"""Rows from standard input: `… | pipemill run --input -`."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import IO

from pipemill.actors.sources.bad_file import find_compression_suffix
from pipemill.actors.sources.registry import find_source, format_names
from pipemill.actors.storage.filesystem import write_blocks
from pipemill.actors.storage.store import Store

from pipemill.errors import ConfigError

from .held_rows import HeldRows, SampleSize, WrittenRows

# The path that stands for it on the command line.
STANDARD_INPUT = "-"
_BLOCK = 2**20


class StandardInput(HeldRows):
    """What is piped to the command, stored as the file that it is."""

    name = "standard input"
    is_stream = True

    @property
    def identity(self) -> str:
        return "stdin"

    def describe(self) -> str:
        return self.name

    def write(self, store: Store, folder: str, format: str, most: SampleSize | None) -> WrittenRows:
        opened = _open()
        first = b"" if opened is None else opened.read(_BLOCK)
        if opened is None or not first:
            raise ConfigError(
                "there is nothing on standard input: pipe a file to the command, or name files "
                "with --input"
            )
        suffix = find_compression_suffix(first)
        format = _guess_format(first, suffix) if format == "auto" else format
        name = f"{folder}/000000{find_source(format).suffixes[0]}{suffix}"
        blocks: Iterable[bytes] = _read_blocks(first, opened)
        whole, size, lines = True, 0, None
        digest = hashlib.sha256()
        if most is not None and most.bytes < sys.maxsize:
            data, whole = _read_sample(blocks, most, cuts=not suffix)
            blocks = [data]
        elif most is not None and not suffix and _has_rows_in_lines(first, format):
            blocks = lines = _FirstLines(blocks, most.rows)

        def digest_blocks() -> Iterator[bytes]:
            nonlocal size
            for block in blocks:
                digest.update(block)
                size += len(block)
                yield block

        write_blocks(store.filesystem, store.locate(name), digest_blocks())
        return WrittenRows(
            format=format,
            files=1,
            rows=None,
            whole=whole if lines is None else lines.are_all,
            digest=digest.hexdigest(),
            bytes=size,
        )


def check_same_input(digest: str, size: int | None) -> None:
    """Raise ConfigError if something else is piped to the command than it stored before.

    Nothing, or a terminal, is taken as a wish to go on.

    size: how many bytes were stored, if there were more.
    """
    opened = _open()
    first = b"" if opened is None else opened.read(_BLOCK)
    if opened is None or not first:
        return
    now = hashlib.sha256()
    left = sys.maxsize if size is None else size
    for block in _read_blocks(first, opened):
        now.update(block[:left])
        left -= len(block)
        if left <= 0:
            break
    if now.hexdigest() != digest:
        raise ConfigError(
            "this output holds the rows of another standard input: name another output, or go on "
            "with the old rows by piping nothing (< /dev/null)"
        )


def _open() -> IO[bytes] | None:
    """Return standard input; None if it is closed, or a terminal."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return None
    return sys.stdin.buffer


def _read_blocks(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    block = first
    while block:
        yield block
        block = file.read(_BLOCK)


def _has_rows_in_lines(first: bytes, format: str) -> bool:
    """Tell whether lines are rows: those of text, and of JSON whose first line is an object."""
    if b"\0" in first[:4096]:  # UTF-16
        return False
    if format == "text":
        return True
    try:
        line = first.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
        return format == "jsonl" and isinstance(json.loads(line), dict)
    except ValueError:
        return False


class _FirstLines:
    """The blocks up to the end of a number of lines that are not blank.

    are_all: whether there was no further byte.
    """

    def __init__(self, blocks: Iterable[bytes], lines: int) -> None:
        self._blocks, self._left = blocks, lines
        self.are_all = True

    def __iter__(self) -> Iterator[bytes]:
        blank = True
        for block in self._blocks:
            start = 0
            while self._left and (end := block.find(b"\n", start)) >= 0:
                self._left -= not blank or (not block[start:end].isspace() and end > start)
                blank, start = True, end + 1
            if not self._left:
                self.are_all = False
                yield block[:start]
                return
            blank = blank and (start == len(block) or block[start:].isspace())
            yield block


def _read_sample(blocks: Iterable[bytes], most: SampleSize, cuts: bool) -> tuple[bytes, bool]:
    """Return the first bytes, up to the end of a line, and whether these are all.

    Args:
        cuts: whether the bytes may end anywhere: they are not compressed.
    """
    data = bytearray()
    for block in blocks:
        data += block
        if cuts and len(data) >= most.bytes:
            return bytes(data[: data.rfind(b"\n") + 1] or data), False
    return bytes(data), True


def _guess_format(first: bytes, suffix: str) -> str:
    line = first.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")[0]
    if not suffix and line.startswith(b"{"):
        try:
            json.loads(line)
            return "jsonl"
        except ValueError:
            if line == b"{\r" or len(line) >= _BLOCK - 8:
                return "jsonl"
    raise ConfigError(
        "can't tell the format of standard input, which is not JSON Lines: name it with --set "
        f"input.format=NAME, one of {', '.join(format_names())}"
    )
