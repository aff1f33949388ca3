"""Read columns of types that only Ray has: tensors, and Python objects that it pickled."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def is_pickled(type: pa.DataType) -> bool:
    """Return whether a column holds objects: values of several types, which Arrow does not know."""
    return getattr(type, "extension_name", "") == "ray.data.arrow_pickled_object"


def unpickle(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts, images and other values of one type that lay beside NaN as an Arrow column.

    Rows of pandas have NaN where a value is missing: where Ray makes a block of such rows, it
    pickles their texts. NaN becomes null. Values of several types, and those that Arrow does not
    know, stay as they are.
    """
    if not is_pickled(column.type):
        return column
    with suppress(Exception):  # values may be objects of any library
        values = [None if _is_missing(value) else _to_plain(value) for value in column.to_pylist()]
        if len({type(value) for value in values} - {type(None)}) < 2:
            for kind in (None, pa.uint64()):  # numbers of 64 bits, such as hashes
                with suppress(pa.ArrowException, TypeError, OverflowError):
                    return pa.chunked_array([pa.array(values, kind)])
    return column


def _is_missing(value: Any) -> bool:
    """Tell whether a value is None, or NaN, NaT or NA of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


def _to_plain(value: Any) -> Any:
    """Return an image that is an array as an image file, and another array as a list."""
    return _encode(value) or value.tolist() if isinstance(value, np.ndarray) else value


def make_missing_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return nulls for a column of NaN alone, which is how Ray stores missing values of pandas."""
    if not pa.types.is_floating(column.type):
        return column
    has_number = pc.any(pc.invert(pc.is_null(column, nan_is_null=True))).as_py()
    return column if has_number else pa.chunked_array([pa.nulls(len(column))])


def is_tensor(type: pa.DataType) -> bool:
    """Return whether a column holds tensors, of one shape or of several."""
    return isinstance(type, pa.BaseExtensionType) and "tensor" in str(type).lower()


def encode_tensors(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Encode each tensor as an image file without compression.

    Args:
        column: tensors of uint8 of shape (height, width), or (height, width, channels) with 1, 3
            or 4 channels.

    Returns:
        Binary values. A tensor that is not such an image becomes empty, and fails when it is read.
    """
    return pa.chunked_array(
        [pa.array(map(_encode, _read_tensors(chunk)), pa.binary()) for chunk in column.chunks],
        pa.binary(),
    )


def _read_tensors(chunk: pa.Array) -> Iterator[np.ndarray | None]:
    if isinstance(chunk, pa.FixedShapeTensorArray):
        tensors: Any = chunk.to_numpy_ndarray()
    else:
        tensors = chunk.to_numpy(zero_copy_only=False)
    for tensor, valid in zip(tensors, chunk.is_valid().to_numpy(False), strict=True):
        yield tensor if valid else None


def _encode(tensor: np.ndarray | None) -> bytes | None:
    from PIL import Image

    if tensor is None:
        return None
    if tensor.ndim == 3 and tensor.shape[2] == 1:
        tensor = tensor[:, :, 0]
    if tensor.dtype != np.uint8 or not (tensor.ndim == 2 or tensor.shape[2:] in ((3,), (4,))):
        return b""
    file = io.BytesIO()
    # BMP is what Pillow writes and reads fastest.
    Image.fromarray(np.ascontiguousarray(tensor)).convert("RGB").save(file, "BMP")
    return file.getvalue()
