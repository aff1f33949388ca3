"""Files that are not of their format, and the single dead letter for each."""

from __future__ import annotations

import gzip
import zlib

import pyarrow as pa

from pipemill.errors import ConfigError

from ..batch import Batch

_COMPRESSED = {b"\x1f\x8b": ("gzip", ".gz"), b"\x28\xb5\x2f\xfd": ("zstd", ".zst")}


class BadFile(ValueError):
    """A file that can't be read at all."""


class NothingToRead(ConfigError):
    """None of the files can be read, or has a row."""


# What readers of such a file raise, those of gzip and zstd too.
BAD_FILE = (BadFile, gzip.BadGzipFile, EOFError, zlib.error)


def find_compression(head: bytes) -> str | None:
    """Return what a file's first bytes show it to be compressed by, against its name."""
    for mark, (library, suffix) in _COMPRESSED.items():
        if head.startswith(mark):
            return f"it is compressed by {library}: let its name end with {suffix}"
    return None


def make_bad_file_batch(schema: pa.Schema, path: str, format: str, error: BaseException) -> Batch:
    """Return a single dead row for a file, whose number of rows is unknown."""
    batch = Batch(pa.table([pa.nulls(1, field.type) for field in schema], schema=schema))
    batch.add_failure("read", 0, BadFile(f"can't read {path} as {format}: {error}"))
    return batch
