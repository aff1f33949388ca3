"""Images, decoded as `transformers.image_utils.load_image` decodes them.

Images of more than 8 bits are scaled instead of clipped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from .media_libraries import require_media_library

if TYPE_CHECKING:
    from PIL import Image

# For EPS Pillow starts Ghostscript, which would run the program in the file. The other formats it
# only knows by name.
_NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
# What else is taken for images.
_OTHERS = (
    (re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL), "it is HEIC: save it as JPEG or PNG"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "it is a video"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg", re.IGNORECASE), "it is SVG: save it as PNG"),
    (re.compile(rb"%PDF-"), "it is PDF: save its pages as PNG"),
    (re.compile(rb"\s*<(!doctype )?html", re.IGNORECASE), "it is a web page"),
    (re.compile(rb".{128}DICM", re.DOTALL), "it is DICOM: save its pixels as PNG"),
    (re.compile(rb"\xff\n|\0{3}\x0cJXL "), "it is JPEG XL: save it as JPEG or PNG"),
    (re.compile(rb"\x93NUMPY"), "it is an array of numpy: save it as PNG"),
)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274


def decode_image(data: bytes) -> Image.Image:
    """Decode the first frame of an image file, upright by its EXIF, in mode RGB.

    Transparency is dropped, as load_image does. Grey of more than 8 bits keeps its 8 highest, as
    Pillow itself does with colour; load_image would make everything above 255 white.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: for bytes that are not an image or are cut off, for more pixels than Pillow's
            limit (`PIL.Image.MAX_IMAGE_PIXELS`), and for 32-bit pixels without a known range.
    """
    require_media_library("image")
    from PIL import Image

    if not data:
        raise ValueError("the image is empty (0 bytes)")
    try:
        picture = _open(data)
        _check_size(picture)
        picture.load()
        _check_size(picture)  # the size of an icon is known only now
        return _turn_upright(convert_to_rgb(picture), picture)
    except Image.DecompressionBombError as error:
        raise ValueError(f"the image is too large: {error}") from None
    except _Unusable as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        # Pillow's decoders raise any error for broken files: SyntaxError, IndexError, struct.error
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"the image is broken or cut off ({reason})") from error


class _Unusable(Exception):
    """An image that can't be used, for the reason in the message."""


def _open(data: bytes) -> Image.Image:
    import io

    from PIL import Image, UnidentifiedImageError

    Image.init()
    try:
        return Image.open(io.BytesIO(data), formats=[f for f in Image.ID if f not in _NOT_READ])
    except UnidentifiedImageError:
        known = next((kind for mark, kind in _OTHERS if mark.match(data)), None)
        what = known or f"its {len(data)} bytes begin with {data[:24]!r}"
        raise _Unusable(f"the image is in a format that pipemill does not read; {what}") from None


def _check_size(picture: Image.Image) -> None:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        # Pillow itself only warns up to twice its limit.
        raise _Unusable(
            f"the image is too large: {picture.width} x {picture.height} pixels, "
            f"more than Pillow's limit of {limit}"
        )


def convert_to_rgb(picture: Image.Image) -> Image.Image:
    """Return a picture of any mode in RGB, with 8 bits of grey that has more."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        tags: Any = getattr(picture, "tag_v2", {})
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        levels = np.asarray(picture) >> (bits - 8)
        if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow heeds that for 8 bits only
            levels = 255 - levels
    elif picture.mode == "I" and picture.format == "PPM":
        levels = np.asarray(picture) >> 8
    elif picture.mode in ("I", "F"):
        levels = _check_eight_bits(np.asarray(picture))
    else:
        return picture.convert("RGB")
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _check_eight_bits(levels: np.ndarray) -> np.ndarray:
    """Return 32-bit pixels that are clearly on a scale from 0 to 255; raise for others.

    A file does not say what other numbers mean.
    """
    low, high = float(levels.min()), float(levels.max())
    # Floats up to 1 may be on a scale from 0 to 1: load_image would make them black.
    if not (low >= 0 and high <= 255) or (levels.dtype.kind == "f" and high <= 1):
        raise _Unusable(
            f"the image has 32-bit pixels from {low:g} to {high:g}, and does not say which values "
            "are black and white: save it with 8 or 16 bits"
        )
    return levels


def _turn_upright(rgb: Image.Image, picture: Image.Image) -> Image.Image:
    """Turn `rgb` as the EXIF of `picture` says.

    The result has no EXIF: the pipelines of transformers would turn it once more.
    """
    turn = find_turn(picture)
    turned = rgb if turn is None else rgb.transpose(turn)
    turned.info = {}
    return turned


def find_turn(picture: Image.Image) -> Image.Transpose | None:
    """Return how a picture is turned to be upright by its EXIF; broken EXIF is ignored."""
    from PIL import Image

    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        orientation = 1
    turn = Image.Transpose
    return {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }.get(orientation)
