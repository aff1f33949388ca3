"""Combine, check and scatter Arrow arrays."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Values = TypeVar("Values", pa.Array, pa.Table)


def combine_chunks(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as a single array; where its chunks end has no meaning."""
    if isinstance(values, pa.ChunkedArray):
        return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    return values


def check_length(items: np.ndarray, values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the values. Raise ValueError unless there is one per item.

    A missing one would shift the answers of all rows after it.
    """
    if len(values) != len(items):
        raise ValueError(f"{len(values)} values for {len(items)} items")
    return combine_chunks(values)


def take_rows(values: Values, rows: np.ndarray) -> Values:
    """Return the rows with these numbers, which ascend; all rows as they are, without a copy."""
    return values if len(rows) == len(values) else values.take(pa.array(rows))


def field_values(chunks: pa.StructArray, name: str) -> np.ndarray:
    """Return a field of each chunk, shape (chunks,)."""
    return chunks.field(name).to_numpy(zero_copy_only=False)


def find_field_values(chunks: pa.StructArray, name: str) -> np.ndarray | None:
    """Return the same; None for chunks without that field."""
    return field_values(chunks, name) if chunks.type.get_field_index(name) >= 0 else None


def make_empty_null(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with nulls for empty texts or lists; one of another type as it is."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        empty = pc.equal(values, "")
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        empty = pc.equal(pc.list_value_length(values), 0)
    else:
        return values
    return pc.if_else(empty, pa.scalar(None, kind), values)


def make_lists(values: pa.Array, counts: np.ndarray) -> pa.ListArray:
    """Group neighbours into lists. counts: values of each list, shape (lists,)."""
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(counts)), pa.int32()), values)


def read_offsets(lists: pa.ListArray) -> np.ndarray:
    """Return where each list begins among all values, and where the last ends; (lists + 1,)."""
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def scatter(
    pieces: list[tuple[np.ndarray, pa.Array]], length: int, type: pa.DataType | None = None
) -> pa.Array:
    """Return an array of `length` with each piece's values at its indices, and null elsewhere.

    Raises:
        OverflowError: the values are too many for one array.
    """
    if not pieces:
        return pa.nulls(length, type)
    try:
        values = pa.concat_arrays([values for _, values in pieces])
    except pa.ArrowInvalid as error:
        if "overflow" not in str(error):
            raise
        raise OverflowError(
            "the answers of a split are more than Arrow holds in a column: use a new output with a "
            "smaller output.rows_per_part"
        ) from None
    if len(pieces) == 1 and np.array_equal(pieces[0][0], np.arange(length)):
        return values
    return values.take(_find_positions([indices for indices, _ in pieces], length))


def scatter_rows(
    pieces: list[tuple[np.ndarray, pa.Table]], length: int, schema: pa.Schema
) -> pa.Table:
    """Return a table of `length` rows with each piece's rows at its indices, and null elsewhere."""
    table = pa.concat_tables([schema.empty_table(), *(rows for _, rows in pieces)])
    return table.combine_chunks().take(_find_positions([indices for indices, _ in pieces], length))


def _find_positions(indices: list[np.ndarray], length: int) -> pa.Array:
    """Return for each place which of the concatenated values belongs there, or null."""
    positions = np.full(length, -1, dtype=np.int64)
    if indices:
        target = np.concatenate(indices)
        positions[target] = np.arange(len(target))
    return pa.array(positions, mask=positions < 0)
