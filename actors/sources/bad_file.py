"""Files that are not of their format, and the single dead letter for each."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from pipemill.errors import ConfigError

from ..batch import Batch
from ..storage.backoff import is_forbidden, retry_on_driver
from .schemas.file_schemas import make_null_rows

T = TypeVar("T")

# How compressed files begin, what they are compressed by, and the end of their names.
_COMPRESSED = (
    (re.compile(rb"\x1f\x8b"), "gzip", ".gz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "zstd", ".zst"),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", re.DOTALL), "bzip2", ".bz2"),
    (re.compile(rb"\xfd7zXZ\0"), "xz", ".xz"),
)
_BARE_RETURNS = (
    "its lines end with a carriage return (CR) alone: end them with LF, as `tr '\\r' '\\n'` does"
)
_ZIP = b"PK\x03\x04"


class BadFile(ValueError):
    """A file that can't be read at all."""


class NothingToRead(ConfigError):
    """None of the files can be read, or has a row."""


# What readers of such a file raise, those of gzip and zstd too.
BAD_FILE = (BadFile, gzip.BadGzipFile, EOFError, zlib.error)


def find_compression_suffix(head: bytes) -> str:
    """Return the suffix that a file's first bytes ask for; "" if it is not compressed."""
    return next((suffix for mark, _, suffix in _COMPRESSED if mark.match(head)), "")


def explain_compression(head: bytes) -> str | None:
    """Return what is wrong with a file whose first bytes are compressed, against its name."""
    if head.startswith(_ZIP):
        return "it is a zip archive: name the files in it, as zip://*::ARCHIVE"
    for mark, library, suffix in _COMPRESSED:
        if mark.match(head):
            return f"it is compressed by {library}: let its name end with {suffix}"
    return None


def find_bare_returns(line: bytes) -> str | None:
    """Return what is wrong if a file's only line is likely several that end with CR alone."""
    is_several = b"\r" in line.rstrip(b"\r\n") and not line.endswith(b"\n")
    return _BARE_RETURNS if is_several else None


def read_or_explain(read: Callable[[], T], path: str, format: str) -> T | ConfigError:
    """Call what reads a file; return the error of a bad one.

    Raises ConfigError if the file may not be read.
    """
    try:
        # Retried one by one: of many thousands, some may fail each time.
        return retry_on_driver(read, path)
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        explained = ConfigError(f"can't read {path} as {format}: {error}")
        if is_forbidden(error):
            raise explained from None
        return explained


def make_bad_file_batch(schema: pa.Schema, path: str, format: str, error: BaseException) -> Batch:
    """Return a single dead row for a file, whose number of rows is unknown."""
    return _make_dead_row(schema, BadFile(f"can't read {path} as {format}: {error}"))


def make_unread_batch(schema: pa.Schema, path: str, read: object) -> Batch:
    """Return a single dead row for a file that was bad when it was planned.

    read: what `read_or_explain` returns now.
    """
    if not isinstance(read, ConfigError):
        raise ValueError(
            f"{path} could not be read when it was planned, and now it can: use a new output"
        )
    return _make_dead_row(schema, read)


def _make_dead_row(schema: pa.Schema, error: BaseException) -> Batch:
    batch = Batch(make_null_rows(schema, 1))
    batch.add_failure("read", 0, error)
    return batch
