"""Find the chunks of a split that equal an earlier one."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow_arrays import combine_chunks

# Longer values, in bytes, are compared by a digest, so that images and audio are not kept twice.
_LONG = 4096


def deduplicate_chunks(chunks: pa.StructArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of each set of equal chunks, and for each chunk the first that equals it.

    Shapes are (distinct,) and (chunks,). The field `lost` is ignored: the model does not see it.
    """
    names = [field.name for field in chunks.type if field.name != "lost"]
    number = np.zeros(len(chunks), dtype=np.int64)
    for name in names:
        values = _assign_numbers(combine_chunks(chunks.field(name)))
        pairs = number * len(chunks) + values  # both are less than the number of chunks
        _, number = np.unique(pairs, return_inverse=True)
    _, first, number = np.unique(number, return_index=True, return_inverse=True)
    return np.sort(first), first[number]


def _assign_numbers(values: pa.Array) -> np.ndarray:
    """Return a number for each value, from 0 on; equal ones if and only if the values are equal."""
    keys = _view_as_binary(values)
    if keys is None:
        keys = pa.array([_digest(value) for value in _iterate_bytes(values)], pa.binary())
    return keys.dictionary_encode().indices.to_numpy()


def _view_as_binary(values: pa.Array) -> pa.Array | None:
    """Return short lists of numbers as binary values, and integers as they are; None for others."""
    if values.null_count:
        return None
    if pa.types.is_integer(values.type):
        return values
    numbers = _flatten_numbers(values)
    if numbers is None or numbers.nbytes > _LONG * len(values):
        return None
    ends = np.cumsum(pc.list_value_length(values).to_numpy(), dtype=np.int64)
    offsets = np.append(0, ends * numbers.dtype.itemsize)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(numbers))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)


def _flatten_numbers(values: pa.Array) -> np.ndarray | None:
    if values.null_count or not pa.types.is_list(values.type):
        return None
    inner = values.flatten()
    is_number = pa.types.is_integer(inner.type) or pa.types.is_floating(inner.type)
    return inner.to_numpy() if is_number and inner.null_count == 0 else None


def _digest(value: bytes | memoryview) -> bytes:
    return hashlib.blake2b(value, digest_size=20).digest()


def _iterate_bytes(values: pa.Array) -> Iterator[bytes | memoryview]:
    """Yield bytes of each value that are equal only if the values are."""
    numbers = _flatten_numbers(values)
    if numbers is not None:
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
