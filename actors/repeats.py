"""Which chunks of a split are the same as one before them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from .arrays import one_array


def first_of_each(chunks: pa.StructArray) -> tuple[np.ndarray, np.ndarray]:
    """The first of each set of equal chunks, and for every chunk the first that equals it.

    The field `lost` says nothing of what is computed. Returns shapes (distinct,) and (chunks,).
    """
    names = [field.name for field in chunks.type if field.name != "lost"]
    columns = [_bytes_of(one_array(chunks.field(name))) for name in names]
    seen: dict[tuple[bytes, ...], int] = {}
    copies = [seen.setdefault(key, i) for i, key in enumerate(zip(*columns, strict=True))]
    firsts = np.fromiter(seen.values(), np.int64, len(seen))
    return firsts, np.array(copies, dtype=np.int64)


def _bytes_of(values: pa.Array) -> list[bytes]:
    """Of each value; equal bytes are equal values."""
    if pa.types.is_list(values.type):
        numbers = values.flatten().to_numpy()
        raw, width = numbers.tobytes(), numbers.dtype.itemsize
        ends = np.cumsum(values.value_lengths().to_numpy()) * width
        starts = np.concatenate([[0], ends[:-1]])
        return [raw[a:b] for a, b in zip(starts, ends, strict=True)]
    if pa.types.is_integer(values.type):
        return [b"%d" % number for number in values.to_pylist()]
    return [
        str(value).encode() if isinstance(value, str) else value for value in values.to_pylist()
    ]
