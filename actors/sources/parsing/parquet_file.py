"""Open a Parquet file so that its values stay as they are."""

from __future__ import annotations

import io
import struct
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

_MAGIC, _KEY = b"PAR1", b"ARROW:schema"


def open_parquet(file: IO[bytes], footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a Parquet file. The old times of Spark and Hive (INT96) are in microseconds.

    Arrow reads them in nanoseconds, in which 9999-12-31 becomes another day without a word.
    """
    return pq.ParquetFile(file, metadata=footer, coerce_int96_timestamp_unit="us")


def read_footer_schema(footer: pq.FileMetaData) -> pa.Schema:
    """Return the columns of a file, in the types that `open_parquet` reads."""
    stored = footer.schema
    if any(stored.column(i).physical_type == "INT96" for i in range(footer.num_columns)):
        return open_parquet(pa.BufferReader(b""), footer).schema_arrow
    return stored.to_arrow_schema()


def open_as_stored(file: IO[bytes]) -> pq.ParquetFile:
    """Open a Parquet file without the Arrow schema in its footer: dictionaries are plain values.

    Arrow fails for a whole row group where it casts the numbers of a dictionary's entries and one
    of these is no UTF-8. It offers no way to leave the schema out, so the footer gets another key.
    """
    file.seek(-8, io.SEEK_END)
    size = file.read(4)
    file.seek(-8 - struct.unpack("<I", size)[0], io.SEEK_END)
    footer = file.read()[:-8].replace(_KEY, _KEY.upper(), 1)
    metadata = pq.read_metadata(io.BytesIO(_MAGIC + footer + size + _MAGIC))
    file.seek(0)
    return open_parquet(file, metadata)
