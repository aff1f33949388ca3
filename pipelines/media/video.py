"""Videos as files, which is how the pipelines of transformers take them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from .av_container import Unusable, open_container
from .requirements import require_media_library


@contextmanager
def video_file(data: bytes) -> Iterator[str]:
    """The path of a temporary file with these bytes, which is gone when the block ends.

    Raises ValueError for no bytes. Nothing is decoded: see `check_video`.
    """
    if not data:
        raise ValueError("the video is empty (0 bytes)")
    with tempfile.NamedTemporaryFile(prefix="pipemill-", suffix=".video") as file:
        file.write(data)
        file.flush()
        yield file.name


def check_video(path: str) -> None:
    """Raises ValueError unless FFmpeg reads the file as a video and its first frame decodes.

    To be called before anything else opens the file: a list of other files or addresses, which
    FFmpeg would open, is refused here.
    """
    require_media_library("video")
    from av.stream import Disposition

    with open_container(path, "video") as container:
        # A cover in a music file is a video stream, too.
        cover = Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            kinds = ", ".join(sorted({s.type for s in container.streams})) or "no stream"
            raise Unusable(f"no video stream in the file ({container.format.name}: {kinds})")
        if next(container.decode(streams[0]), None) is None:
            raise Unusable("the video has no frames")
