"""Arrow arrays by the numbers of their items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def combine_chunks(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A single array: two adjacent chunks of one column are no boundary that means anything."""
    if isinstance(values, pa.ChunkedArray):
        return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    return values


def check_length(items: np.ndarray, values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One value per item, or an error: a missing one would shift the answers of all that follow."""
    if len(values) != len(items):
        raise ValueError(f"{len(values)} values for {len(items)} items")
    return combine_chunks(values)


def field_values(chunks: pa.StructArray, name: str) -> np.ndarray:
    """That field of each chunk."""
    return chunks.field(name).to_numpy(zero_copy_only=False)


def offsets_of(lists: pa.ListArray) -> np.ndarray:
    """Where each list begins among the values of all, and where the last ends."""
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def scatter(
    pieces: list[tuple[np.ndarray, pa.Array]], length: int, type: pa.DataType | None = None
) -> pa.Array:
    """An array of `length` with each piece's values at its indices, and null elsewhere."""
    if not pieces:
        return pa.nulls(length, type)
    source = np.full(length, -1, dtype=np.int64)
    at = np.concatenate([index for index, _ in pieces])
    source[at] = np.arange(len(at))
    values = pa.concat_arrays([values for _, values in pieces])
    return values.take(pa.array(source, mask=source < 0))
