"""Write PIL images as files that are read to the same pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipemill.errors import error_message

from .encode import encode_png
from .images import convert_to_rgb, find_turn

if TYPE_CHECKING:
    from PIL import Image

# What PNG holds without a loss. It cuts 32-bit pixels ("I") down to 16 bits.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def is_picture(value: Any) -> bool:
    """Return whether a value is a PIL image, without importing PIL."""
    return any(cls.__module__ == "PIL.Image" for cls in type(value).__mro__)


def encode_picture(picture: Image.Image) -> bytes:
    """Return a PIL image as a file, upright by its EXIF, which a PNG would lose.

    A picture that can't be read becomes the bytes of its file: a row that fails, like its path.

    Raises:
        ValueError: for a picture that can't be read, and came from no file.
    """
    try:
        picture.load()
    except Exception as error:
        original = _read_file(picture)
        if original is not None:
            return original
        reason = f"{type(error).__name__}: {error_message(error)}"
        raise ValueError(f"a picture can't be read ({reason})") from None
    if not picture.width * picture.height:
        return b""  # which is an empty picture where it is read, too
    turn = find_turn(picture)
    tags: Any = getattr(picture, "tag_v2", None)
    if picture.mode.startswith("I;16"):
        # A TIFF may have 12 bits, or white as zero, which only its tags say.
        upright = picture if tags is None else convert_to_rgb(picture)
    else:
        upright = picture
    upright = upright if turn is None else upright.transpose(turn)
    if upright.mode in _PNG_MODES or upright.mode.startswith("I;16"):
        return encode_png(upright)
    try:
        sink = io.BytesIO()
        upright.save(sink, format="TIFF")
        return sink.getvalue()
    except (OSError, KeyError, ValueError):  # a mode that TIFF lacks, too
        return encode_png(upright.convert("LA" if upright.mode == "La" else "RGB"))


def _read_file(picture: Image.Image) -> bytes | None:
    """Return the bytes of the file that a picture was opened from, if they can still be read."""
    try:
        file = getattr(picture, "fp", None)
        if file is not None and not file.closed:
            file.seek(0)
            return file.read()
        name = getattr(picture, "filename", "")
        return Path(name).read_bytes() if name else None
    except (OSError, ValueError, TypeError):
        return None
