"""Pictures as `transformers.image_utils.load_image` gives them; deeper ones scaled, not clipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .requirements import require_media_library

if TYPE_CHECKING:
    from PIL import Image

# Pillow starts Ghostscript on EPS, a program with an interpreter for whatever the file says; the
# others it knows by name alone.
_NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274


def image(data: bytes) -> Image.Image:
    """The picture in an image file's bytes: mode RGB, upright by its EXIF, the first frame.

    Transparency is dropped, as load_image does. Grey of more than 8 bits keeps its 8 highest, as
    Pillow itself does with colour; load_image would make everything above 255 white.
    Raises ValueError for what is no image, is cut off, has more pixels than Pillow's limit
    (`PIL.Image.MAX_IMAGE_PIXELS`), or has 32-bit pixels without a known range.
    """
    require_media_library("image")
    from PIL import Image

    if not data:
        raise ValueError("the image is empty (0 bytes)")
    try:
        picture = _open(data)
        _check_size(picture)
        picture.load()
        _check_size(picture)  # icons say their size only here
        return _turn_upright(_convert_to_rgb(picture), picture)
    except Image.DecompressionBombError as error:
        raise ValueError(f"the image is too large: {error}") from None
    except _Unusable as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        # Its decoders raise nearly anything for broken files: SyntaxError, IndexError, struct.error
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"the image is broken or cut off ({reason})") from error


class _Unusable(Exception):
    """An image with something wrong that has been put into words."""


def _open(data: bytes) -> Image.Image:
    import io

    from PIL import Image, UnidentifiedImageError

    Image.init()
    try:
        return Image.open(io.BytesIO(data), formats=[f for f in Image.ID if f not in _NOT_READ])
    except UnidentifiedImageError:
        raise _Unusable(
            f"no image in a format that is read; its {len(data)} bytes begin with {data[:24]!r}"
        ) from None


def _check_size(picture: Image.Image) -> None:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        # Pillow itself only warns up to twice its limit.
        raise _Unusable(
            f"the image is too large: {picture.width} x {picture.height} pixels, "
            f"more than Pillow's limit of {limit}"
        )


def _convert_to_rgb(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if picture.mode.startswith("I;16"):
        tags: Any = getattr(picture, "tag_v2", {})
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        levels = np.asarray(picture) >> (bits - 8)
        if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow minds that for 8 bits only
            levels = 255 - levels
    elif picture.mode == "I" and picture.format == "PPM":
        levels = np.asarray(picture) >> 8
    elif picture.mode in ("I", "F"):
        levels = _check_eight_bits(np.asarray(picture))
    else:
        return picture.convert("RGB")
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _check_eight_bits(levels: np.ndarray) -> np.ndarray:
    """Pixels of 32 bits that are plainly 0 to 255; what other numbers mean, no file says."""
    low, high = float(levels.min()), float(levels.max())
    # Floats up to 1 may be a picture in the scale 0 to 1: load_image would make it black.
    if not (low >= 0 and high <= 255) or (levels.dtype.kind == "f" and high <= 1):
        raise _Unusable(
            f"the image has 32-bit pixels from {low:g} to {high:g}, and nothing says what is "
            "black and what white; save it with 8 or 16 bits"
        )
    return levels


def _turn_upright(rgb: Image.Image, picture: Image.Image) -> Image.Image:
    """`rgb` turned as the EXIF of `picture` says; broken EXIF says nothing.

    It no longer says so itself: the pipelines of transformers would turn it once more.
    """
    from PIL import Image

    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        orientation = 1
    turn = Image.Transpose
    method = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }.get(orientation)
    turned = rgb if method is None else rgb.transpose(method)
    turned.info = {}
    return turned
