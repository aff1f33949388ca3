"""Turn images that are tensors, as `ray.data.read_images` has them, into image files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa


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
