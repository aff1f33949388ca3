"""Find the chunks of a split that equal an earlier one."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow_arrays import combine_chunks


def deduplicate_chunks(chunks: pa.StructArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of each set of equal chunks, and for each chunk the first that equals it.

    Shapes are (distinct,) and (chunks,). The field `lost` is ignored: the model does not see it.
    """
    names = [field.name for field in chunks.type if field.name != "lost"]
    columns = [_iterate_bytes(combine_chunks(chunks.field(name))) for name in names]
    seen: dict[bytes, int] = {}
    first = [seen.setdefault(_digest(key), i) for i, key in enumerate(zip(*columns, strict=True))]
    distinct = np.fromiter(seen.values(), np.int64, len(seen))
    return distinct, np.array(first, dtype=np.int64)


def _digest(values: tuple[bytes | memoryview, ...]) -> bytes:
    """Return a short key, so that images and audio are not kept twice."""
    digest = hashlib.blake2b(digest_size=20)
    for value in values:
        digest.update(b"%d " % len(value))
        digest.update(value)
    return digest.digest()


def _iterate_bytes(values: pa.Array) -> Iterator[bytes | memoryview]:
    """Yield bytes of each value that are equal only if the values are."""
    if values.null_count == 0 and pa.types.is_list(values.type):
        inner = values.flatten()
        if inner.null_count == 0 and (
            pa.types.is_integer(inner.type) or pa.types.is_floating(inner.type)
        ):
            numbers = inner.to_numpy()
            raw = memoryview(numbers.tobytes())
            widths = pc.list_value_length(values).to_numpy() * numbers.dtype.itemsize
            ends = np.cumsum(widths)
            yield from (raw[end - width : end] for end, width in zip(ends, widths, strict=True))
            return
    if values.null_count == 0 and (
        pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    ):
        yield from (memoryview(value.as_buffer()) for value in values)
        return
    yield from (pickle.dumps(value.as_py(), 5) for value in values)
