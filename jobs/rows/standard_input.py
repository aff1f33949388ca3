"""Rows from standard input: `… | pipemill run --input -`."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
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
        blocks, whole = _blocks(first, opened), True
        digest = hashlib.sha256()
        if most is not None:
            data, whole = _read_sample(blocks, most, cuts=not suffix)
            blocks = iter([data])

        def digested() -> Iterator[bytes]:
            for block in blocks:
                digest.update(block)
                yield block

        write_blocks(store.filesystem, store.locate(name), digested())
        return WrittenRows(
            format=format, files=1, rows=None, whole=whole, digest=digest.hexdigest()
        )


def check_same_input(digest: str) -> None:
    """Raise ConfigError if something else is piped to the command than it stored before.

    Nothing, or a terminal, is taken as a wish to go on.
    """
    opened = _open()
    first = b"" if opened is None else opened.read(_BLOCK)
    if opened is None or not first:
        return
    now = hashlib.sha256()
    for block in _blocks(first, opened):
        now.update(block)
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


def _blocks(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    block = first
    while block:
        yield block
        block = file.read(_BLOCK)


def _read_sample(blocks: Iterator[bytes], most: SampleSize, cuts: bool) -> tuple[bytes, bool]:
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
