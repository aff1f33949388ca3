"""Videos as files, because the pipelines of transformers take paths."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from .av_container import Unusable, open_container
from .media_libraries import require_media_library


@contextmanager
def open_video_file(data: bytes) -> Iterator[str]:
    """Write bytes to a temporary file for the time of a block, and yield its path.

    Nothing is decoded: see `check_video`.

    Raises:
        ValueError: for no bytes.
    """
    if not data:
        raise ValueError("the video is empty (0 bytes)")
    with tempfile.NamedTemporaryFile(prefix="pipemill-", suffix=".video") as file:
        file.write(data)
        file.flush()
        yield file.name


def check_video(path: str) -> None:
    """Raise ValueError unless FFmpeg reads the file as a video and its first frame decodes.

    Call this before anything else opens the file: it refuses lists of files or addresses, which
    FFmpeg would open.
    """
    require_media_library("video")
    from av.stream import Disposition

    with open_container(path, "video") as container:
        # The cover of a music file is a video stream, too.
        cover = Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            types = ", ".join(sorted({s.type for s in container.streams})) or "no stream"
            raise Unusable(f"no video stream in the file ({container.format.name}: {types})")
        if next(container.decode(streams[0]), None) is None:
            raise Unusable("the video has no frames")
