"""Encode pictures, masks and audio as the bytes of a result column: PNG and WAV."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np

from .media_libraries import require_media_library

if TYPE_CHECKING:
    from PIL import Image

_IEEE_FLOAT = 3
_LARGEST_WAV = 2**32 - 1


def encode_png(picture: np.ndarray | Image.Image) -> bytes:
    """Encode a picture or a mask as a PNG file.

    A bool mask becomes a PNG of 1 bit, which `numpy.asarray(Image.open(…))` reads as bool again.

    Args:
        picture: a PIL image, a mask of shape (height, width), bool or uint8, or colours of shape
            (height, width, 3 or 4), uint8.

    Raises:
        ValueError: for other arrays, and for a picture with a mode that PNG lacks (F, CMYK).
    """
    require_media_library("image")
    from PIL import Image

    if not isinstance(picture, Image.Image):
        array = np.asarray(picture)
        colour = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8
        if not colour and (array.ndim != 2 or array.dtype not in (np.bool_, np.uint8)):
            raise ValueError(
                f"no PNG of an array of {array.dtype} and shape {array.shape}: it must be bool or "
                "uint8, and (height, width)"
            )
        if array.size == 0:
            raise ValueError(f"no PNG of an array without pixels, of shape {array.shape}")
        picture = Image.fromarray(np.ascontiguousarray(array))
    sink = io.BytesIO()
    try:
        picture.save(sink, format="PNG")
    except OSError as error:
        raise ValueError(f"no PNG of this picture: {error}") from None
    return sink.getvalue()


def encode_wav(samples: np.ndarray, sampling_rate: int) -> bytes:
    """Encode samples as a WAV file of float32.

    Equal samples give equal bytes. (libsndfile would write the time of day into the header.)

    Args:
        samples: shape (samples,) or (channels, samples).
        sampling_rate: Hz.

    Raises:
        ValueError: for other shapes, no samples, samples that are not finite, or over 4 GiB.
    """
    samples = np.atleast_2d(np.asarray(samples, dtype="<f4"))
    if samples.ndim != 2 or samples.size == 0 or len(samples) > 64:
        raise ValueError(
            f"no WAV of an array of shape {samples.shape}: it must be (samples,) or (channels, "
            "samples)"
        )
    if not np.isfinite(samples).all():
        raise ValueError("no WAV of samples that are not finite (NaN or infinite)")
    channels, length = samples.shape
    frame = 4 * channels
    format = struct.pack(
        "<HHIIHHH", _IEEE_FLOAT, channels, sampling_rate, sampling_rate * frame, frame, 32, 0
    )
    head = b"WAVE" + _make_chunk(b"fmt ", format) + _make_chunk(b"fact", struct.pack("<I", length))
    if len(head) + 8 + samples.nbytes > _LARGEST_WAV:
        raise ValueError(f"no WAV of {samples.nbytes} bytes: the format ends at 4 GiB")
    return _make_chunk(b"RIFF", head + _make_chunk(b"data", samples.T.tobytes()))


def _make_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content
