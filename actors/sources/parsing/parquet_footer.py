"""Open a Parquet file as its columns are stored, not in the Arrow types that its writer had."""

from __future__ import annotations

import io
import struct
from typing import IO

import pyarrow.parquet as pq

_MAGIC, _KEY = b"PAR1", b"ARROW:schema"


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
    return pq.ParquetFile(file, metadata=metadata)
