"""Digest the values of tables, so that equal rows are known again in another process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import combine_chunks
from pipemill.actors.sources.schemas.file_schemas import map_types


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def digest_tables(tables: Iterable[pa.Table]) -> str:
    """Return a short digest of the names, types and values of tables.

    It does not depend on how Arrow lays them out in memory.
    """
    digest = hashlib.blake2b(digest_size=8)
    for table in tables:
        for name, column in zip(table.column_names, table.columns, strict=True):
            digest.update(f"{name}\0{column.type}\0{len(column)}\0".encode())
            _add(digest, combine_chunks(column))
    return digest.hexdigest()


def _add(digest: _Digest, values: pa.Array) -> None:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    digest.update(pc.is_valid(values).to_numpy(zero_copy_only=False).tobytes())
    if pa.types.is_struct(kind):
        for child in values.flatten():
            _add(digest, child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        dense = values.drop_null()
        digest.update(pc.list_value_length(dense).to_numpy(zero_copy_only=False).tobytes())
        _add(digest, dense.flatten())
    elif _is_bytes(kind):
        _add_bytes(digest, values.drop_null())
    else:
        plain = values.drop_null()
        try:
            numbers = plain.to_numpy(zero_copy_only=False) if pa.types.is_primitive(kind) else None
            if numbers is not None and numbers.dtype != object:
                digest.update(np.ascontiguousarray(numbers).tobytes())
            else:  # decimals, maps, times of a day: few have many of these
                digest.update(repr(plain.to_pylist()).encode())
        except (ValueError, OverflowError):  # a time that Python has no value for
            ticks = plain.cast(map_types(kind, _count_ticks))
            digest.update(repr(ticks.to_pylist()).encode())


def _count_ticks(kind: pa.DataType) -> pa.DataType:
    """Return the whole numbers that hold a type of times; another type as it is."""
    if not pa.types.is_temporal(kind):
        return kind
    return pa.int32() if kind.bit_width == 32 else pa.int64()


def _is_bytes(kind: pa.DataType) -> bool:
    long = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    return long or pa.types.is_string(kind) or pa.types.is_binary(kind)


def _add_bytes(digest: _Digest, values: pa.Array) -> None:
    if not len(values):
        return
    wide = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int64 if wide else np.int32)
    ends = ends[values.offset : values.offset + len(values) + 1]
    digest.update(np.diff(ends).astype(np.int64).tobytes())
    if data is not None:
        digest.update(memoryview(data)[ends[0] : ends[-1]])
