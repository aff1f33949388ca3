"""A part as a file: a Parquet table that says what it is, and shows whether it was changed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_KEY = b"pipemill"
_BLOCK = 2**22
_BLANK = "0" * 32  # in the place of the digest while it is taken
_TAIL = 8  # behind the Parquet footer: its length, and PAR1


@dataclass(frozen=True)
class PartInfo:
    """A part that was read. notes: what its footer says; {} for a file of another program's."""

    notes: dict[str, Any]
    rows: int
    schema: pa.Schema


def encode_part(table: pa.Table, notes: dict[str, Any]) -> bytes:
    """The file. Its footer holds the notes, and a digest of every byte but the digest's own."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: json.dumps({**notes, "digest": _BLANK})})
    data = bytearray(sink.getbuffer())
    place = data.rindex(_BLANK.encode())
    data[place : place + len(_BLANK)] = _digest([data]).encode()
    return bytes(data)


def read_footer(file: Any) -> dict[str, Any]:
    """What the footer of an opened part says. Raises an exception if it is none."""
    return json.loads(pq.read_metadata(file).metadata[_KEY])


def check_part(file: Any) -> tuple[PartInfo, str | None]:
    """An opened part, read to its end, and what is wrong with it: None if it is as it was written.

    Raises an exception for what is no whole Parquet file.
    """
    metadata = pq.read_metadata(file)
    schema = metadata.schema.to_arrow_schema().remove_metadata()
    try:
        notes = json.loads((metadata.metadata or {})[_KEY])
        written = str(notes.pop("digest"))
    except (KeyError, ValueError, AttributeError):
        return PartInfo({}, metadata.num_rows, schema), "it was not written by pipemill"
    end = file.seek(0, 2)
    footer = end - _TAIL - metadata.serialized_size
    file.seek(0)
    changed = _digest(_blocks(file, footer, written)) != written
    found = PartInfo(notes, metadata.num_rows, schema)
    return found, "it was changed after pipemill wrote it" if changed else None


def _blocks(file: Any, footer: int, digest: str) -> Iterator[bytes]:
    """The file as it was when its digest was taken; `footer` is where its footer begins."""
    for place in range(0, footer, _BLOCK):
        yield file.read(min(_BLOCK, footer - place))
    yield file.read().replace(digest.encode(), _BLANK.encode())


def to_ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers in ascending order as [start, stop) ranges: a part may have many dead rows."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] += 1
        else:
            ranges.append([int(number), int(number) + 1])
    return ranges


def from_ranges(ranges: list[list[int]]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *(np.arange(a, b) for a, b in ranges)])


def _digest(blocks: Iterable[Any]) -> str:
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
