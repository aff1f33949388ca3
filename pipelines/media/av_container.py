"""Open files of audio or video that may hold anything."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .media_libraries import require_media_library

# The formats that FFmpeg may take a file for. Others, such as concat, hls, dash and sdp, are lists
# of files and addresses, which it would open or listen to.
_FORMATS = (
    "wav w64 aiff au caf flac ogg mp3 mov matroska aac ac3 eac3 amr amrnb amrwb wv ape tta voc asf "
    "nistsphere shn sox ircam dss qcp dsf dts mpc mpc8 oma tak yuv4mpegpipe dhav "
    "avi flv mpeg mpegts mpegvideo m4v h264 hevc av1 obu ivf dv mxf nut rm gif apng"
).split()


@contextmanager
def open_container(source: bytes | str, kind: str) -> Iterator[Any]:
    """Open a PyAV container for reading.

    Every error of PyAV inside the block becomes a ValueError.

    Args:
        source: the file's bytes, or its path.
        kind: "audio" or "video", for messages.
    """
    require_media_library(kind)
    import av

    file = source if isinstance(source, str) else io.BytesIO(source)
    if not source:
        raise ValueError(f"the {kind} is empty (0 bytes)")
    try:
        options = {"format_whitelist": ",".join(_FORMATS)}
        # From PyAV 19 on, metadata of other encodings are no error.
        is_old = int(av.__version__.split(".")[0]) < 19
        more: dict[str, Any] = {"metadata_errors": "replace"} if is_old else {}
        container = av.open(file, options=options, **more)
    except Exception as error:
        head = _read_beginning(source)
        raise ValueError(
            f"the {kind} is in a format that pipemill does not read, or cut off "
            f"({_describe_error(error)}); its bytes begin with {head!r}"
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
    """A file that can't be used, for the reason in the message."""


def _read_beginning(source: bytes | str) -> bytes:
    if isinstance(source, bytes):
        return source[:24]
    with open(source, "rb") as file:
        return file.read(24)


def _describe_error(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
