"""Parts as files: Parquet tables that say what they are, and show whether they were changed."""

from __future__ import annotations

import hashlib
import io
import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .part_footer import Footer, PartFooter, Ranges, read_footer_json

_KEY = b"pipemill"
_BLOCK = 2**22
_DIGEST = "digest"
_BLANK = "0" * 32  # stands for the digest while it is computed
_TAIL = 8  # bytes behind the Parquet footer: its length, and PAR1


@dataclass(frozen=True)
class PartInfo:
    """A part, or a file of dead letters, that was read.

    Attributes:
        footer: None for a file that another program wrote.
        rows: the rows of the file.
    """

    footer: Footer | None
    rows: int
    schema: pa.Schema


def encode_part(table: pa.Table, footer: Footer) -> bytes:
    """Return the bytes of the file. Its footer also holds a digest of every other byte."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema) as writer:
        if table.num_rows:  # `datasets` refuses a file with an empty row group
            writer.write_table(table)
        writer.add_key_value_metadata({_KEY: json.dumps({**footer.to_json(), _DIGEST: _BLANK})})
    data = bytearray(sink.getbuffer())
    place = data.rindex(_BLANK.encode())
    data[place : place + len(_BLANK)] = _digest([data]).encode()
    return bytes(data)


def read_footer(file: IO[bytes] | pa.NativeFile) -> PartFooter:
    """Read the footer of an opened part. Raises an exception if the file is not a part."""
    footer, _ = _parse_footer(pq.read_metadata(file))
    if not isinstance(footer, PartFooter):
        raise ValueError("it holds dead letters")
    return footer


def read_footer_end(end: bytes) -> PartFooter | None:
    """Read the footer of a part from the file's last bytes; None if they don't hold all of it.

    Raises an exception if the file is not a part.
    """
    if end[-4:] == b"PAR1" and int.from_bytes(end[-_TAIL:-4], "little") > len(end) - _TAIL:
        return None
    return read_footer(pa.BufferReader(end))


def _parse_footer(metadata: pq.FileMetaData) -> tuple[Footer, str]:
    """Return the footer and the digest. Raises an exception if pipemill did not write the file."""
    notes = json.loads((metadata.metadata or {})[_KEY])
    digest = str(notes.pop(_DIGEST))
    return read_footer_json(notes), digest


def check_part(file: IO[bytes]) -> tuple[PartInfo, str | None]:
    """Read an opened part to its end; return what is wrong with it, None if it is unchanged.

    Raises an exception for a file that is not a whole Parquet file.
    """
    metadata = pq.read_metadata(file)
    schema = metadata.schema.to_arrow_schema().remove_metadata()
    try:
        footer, written = _parse_footer(metadata)
    except (KeyError, ValueError, TypeError, AttributeError):
        return PartInfo(None, metadata.num_rows, schema), "it was not written by pipemill"
    end = file.seek(0, 2)
    start = end - _TAIL - metadata.serialized_size
    file.seek(0)
    changed = _digest(_read_blocks(file, start, written)) != written
    info = PartInfo(footer, metadata.num_rows, schema)
    return info, "it was changed after pipemill wrote it" if changed else None


def _read_blocks(file: IO[bytes], footer: int, digest: str) -> Iterator[bytes]:
    """Yield the file as it was when its digest was computed. footer: where its footer starts."""
    for place in range(0, footer, _BLOCK):
        yield file.read(min(_BLOCK, footer - place))
    yield file.read().replace(digest.encode(), _BLANK.encode())


def to_ranges(numbers: Iterable[int]) -> Ranges:
    """Turn ascending numbers into [start, stop) ranges: a part may have many dead rows."""
    rows = np.fromiter(numbers, np.int64)
    if not len(rows):
        return array("q")
    cuts = np.flatnonzero(np.diff(rows) != 1)
    starts, lasts = rows[np.append(0, cuts + 1)], rows[np.append(cuts, len(rows) - 1)]
    return array("q", np.stack([starts, lasts + 1], axis=1).tobytes())


def from_ranges(ranges: Ranges) -> np.ndarray:
    """Return the numbers in ranges."""
    starts, stops = np.array(ranges, np.int64).reshape(-1, 2).T
    lengths = stops - starts
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)


def _digest(blocks: Iterable[bytes | bytearray]) -> str:
    whole = hashlib.sha256()
    for block in blocks:
        whole.update(block)
    return whole.hexdigest()[: len(_BLANK)]


def append_columns(rows: pa.Table, added: pa.Table) -> pa.Table:
    """Return the input's columns and the added ones.

    An input column with the name of an added one becomes `input_NAME`.
    """
    taken = set(added.column_names)
    names = []
    for name in rows.column_names:
        while name in taken:
            name = f"input_{name}"
        taken.add(name)
        names.append(name)
    joined = rows.rename_columns(names)
    for field, column in zip(added.schema, added.columns, strict=True):
        joined = joined.append_column(field, column)
    return joined
