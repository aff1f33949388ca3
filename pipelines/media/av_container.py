"""Opening a file of audio or video whose bytes nobody vouches for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .requirements import require_media_library

# What FFmpeg may take a file for. Among the others are lists of other files and addresses
# (concat, hls, dash, sdp), which it would open or listen to.
_FORMATS = (
    "wav w64 aiff au caf flac ogg mp3 mov matroska aac ac3 eac3 amr amrnb amrwb wv ape tta voc asf "
    "avi flv mpeg mpegts mpegvideo m4v h264 hevc av1 obu ivf dv mxf nut rm gif apng"
).split()


@contextmanager
def open_container(source: bytes | str, kind: str) -> Iterator[Any]:
    """A PyAV container of bytes or of a file, for reading. kind: "audio" or "video".

    All that PyAV raises within becomes a ValueError.
    """
    require_media_library(kind)
    import av

    file = source if isinstance(source, str) else io.BytesIO(source)
    if not source:
        raise ValueError(f"the {kind} is empty (0 bytes)")
    try:
        options = {"format_whitelist": ",".join(_FORMATS)}
        container = av.open(file, options=options, metadata_errors="replace")
    except Exception as error:
        begin = _read_beginning(source)
        raise ValueError(
            f"no {kind} in a format that is read, or one cut off ({_describe_error(error)}); "
            f"its bytes begin with {begin!r}"
        ) from error
    with container:
        try:
            yield container
        except Unusable as error:
            raise ValueError(str(error)) from None
        except Exception as error:
            raise ValueError(
                f"the {kind} is broken or cut off ({_describe_error(error)})"
            ) from error


class Unusable(Exception):
    """A file with something wrong that has been put into words."""


def _read_beginning(source: bytes | str) -> bytes:
    if isinstance(source, bytes):
        return source[:24]
    with open(source, "rb") as file:
        return file.read(24)


def _describe_error(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
