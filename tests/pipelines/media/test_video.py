"""Videos as files: real ones made by PyAV, and what is none."""

from __future__ import annotations

import io
import os

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pipemill.pipelines.media import check_video, encode_png, encode_wav, open_video_file


def video(format: str, codec: str) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format=format) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = 48, 32
        if codec == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        for i in range(6):
            pixels = np.full((32, 48, 3), 40 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    return sink.getvalue()


def _gif() -> bytes:
    sink = io.BytesIO()
    pictures = [Image.new("RGB", (48, 32), colour) for colour in ("red", "green", "blue")]
    pictures[0].save(sink, "GIF", save_all=True, append_images=pictures[1:])
    return sink.getvalue()


VIDEOS = {
    "mp4": video("mp4", "mpeg4"),
    "webm": video("webm", "libvpx"),
    "mkv": video("matroska", "mpeg4"),
    "avi": video("avi", "mjpeg"),
    "mpegts": video("mpegts", "mpeg2video"),
    "gif": _gif(),
}


def _song_with_cover() -> bytes:
    """An MP3 whose ID3 tag holds a picture, which FFmpeg takes for a video of one frame."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    picture = b"\0image/png\0\x03\0" + encode_png(np.ones((4, 4), bool))
    tag = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = bytes((len(tag) >> 7 * place) & 127 for place in (3, 2, 1, 0))
    song = sink.getvalue()
    assert song[:3] == b"ID3"
    length = int.from_bytes(song[6:10], "big")  # short enough for one of its seven-bit digits
    return b"ID3\x03\0\0" + size + tag + song[10 + length :]


def _without_frames() -> bytes:
    """A Matroska header, then a cluster with a time and nothing else."""
    cluster = b"\x1f\x43\xb6\x75"
    return VIDEOS["mkv"][: VIDEOS["mkv"].index(cluster)] + cluster + b"\x83\xe7\x81\0"


def check(data: bytes) -> None:
    with open_video_file(data) as path:
        check_video(path)


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_are_videos(name):
    with open_video_file(VIDEOS[name]) as path:
        check_video(path)
        with open(path, "rb") as file:
            assert file.read() == VIDEOS[name]
        with av.open(path) as container:  # as transformers opens it
            assert sum(1 for _ in container.decode(video=0)) in (3, 6)


def test_the_file_is_gone_afterwards():
    with open_video_file(b"abc") as path:
        assert os.path.isfile(path)
    assert not os.path.exists(path)
    with pytest.raises(RuntimeError), open_video_file(b"abc") as path:
        raise RuntimeError
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"^the video is empty \(0 bytes\)"),
        (b"<html>", "^the video is in a format that pipemill does not read.* begin with b'<html>'"),
        (encode_wav(np.zeros(800), 16000), r"^no video stream in the file \(wav: audio\)"),
        (_song_with_cover(), r"^no video stream in the file \(mp3: audio, video\)"),
        (VIDEOS["mp4"][:-300], "^the video is in a format that pipemill does not read"),
        (VIDEOS["mkv"][:400], "^(no video|the video)"),
        (_without_frames(), "^the video has no frames"),
        (
            b"ffconcat version 1.0\nfile 'a.mp4'\n",
            "^the video is in a format that pipemill does not read",
        ),
        (
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 31\n",
            "^the video is in a format",
        ),
    ],
)
def test_what_is_no_video_says_so(data, message):
    with pytest.raises(ValueError, match=message):
        check(data)


def test_a_list_of_files_is_refused_where_ffmpeg_would_open_them(tmp_path):
    (tmp_path / "private.mp4").write_bytes(VIDEOS["mp4"])
    listing = tmp_path / "listing.mp4"
    listing.write_text("ffconcat version 1.0\nfile 'private.mp4'\n")
    with av.open(str(listing)) as container:
        assert next(container.decode(video=0)).width == 48
    with pytest.raises(ValueError, match="^the video is in a format that pipemill does not read"):
        check_video(str(listing))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(VIDEOS)), st.data())
def test_broken_files_are_errors_of_the_row(name, draw):
    data = bytearray(VIDEOS[name])
    for _ in range(draw.draw(st.integers(1, 5))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.sampled_from([len(data), draw.draw(st.integers(0, len(data)))]))
    _only_errors_of_the_row(bytes(data[:cut]))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_errors_of_the_row(data):
    _only_errors_of_the_row(data)


def _only_errors_of_the_row(data: bytes) -> None:
    try:
        check(data)
    except (ValueError, OSError) as error:
        assert str(error)  # noqa: PT017
