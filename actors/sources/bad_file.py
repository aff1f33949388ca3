"""Files that are not what their name says, and the one dead letter that stands for each."""

from __future__ import annotations

import gzip
import zlib

import pyarrow as pa

from pipemill.errors import ConfigError

from ..batch import Batch


class BadFile(ValueError):
    """A file that can't be read as a whole."""


class NothingToRead(ConfigError):
    """None of the files has a row, or can be read."""


# What such a file makes the readers of gzip and zstd raise.
BAD_FILE = (BadFile, gzip.BadGzipFile, EOFError, zlib.error)


def bad_file_batch(schema: pa.Schema, path: str, format: str, error: BaseException) -> Batch:
    """Make the one dead row for a whole file: nobody knows how many it has."""
    batch = Batch(pa.table([pa.nulls(1, field.type) for field in schema], schema=schema))
    batch.add_failure("read", 0, BadFile(f"can't read {path} as {format}: {error}"))
    return batch
