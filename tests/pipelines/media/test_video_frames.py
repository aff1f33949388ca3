"""Frames for a video processor of transformers that finds no decoder it knows."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace

import av
import numpy as np
import pytest
from pipemill.pipelines.media import let_pyav_decode, open_video_file
from transformers.video_utils import load_video

from .test_video import VIDEOS


def pipeline(monkeypatch, decoder: str | None = None):
    """A pipeline whose processor decodes with `decoder`, after `let_pyav_decode`."""
    torchvision, io = types.ModuleType("torchvision"), types.ModuleType("torchvision.io")
    if decoder == "torchvision":  # as until 0.26
        io.read_video = None
    torchcodec = types.ModuleType("torchcodec") if decoder == "torchcodec" else None
    modules = {"torchvision": torchvision, "torchvision.io": io, "torchcodec": torchcodec}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    made = SimpleNamespace(video_processor=SimpleNamespace(fetch_videos="its own"))
    let_pyav_decode(made)
    return made


def middle(metadata):
    """Some frames, one of them twice."""
    return np.array([1, 1, metadata.total_num_frames - 1])


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_those_of_the_file(monkeypatch, name):
    fetch = pipeline(monkeypatch).video_processor.fetch_videos
    with open_video_file(VIDEOS[name]) as path:
        with av.open(path) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        (video,), (metadata,) = fetch([path])
        assert np.array_equal(video, frames)
        assert metadata.total_num_frames == len(frames)
        some, metadata = fetch(path, sample_indices_fn=middle)
        assert np.array_equal(some, [frames[1], frames[1], frames[-1]])
        assert metadata.frames_indices.tolist() == [1, 1, len(frames) - 1]
        if name == "mp4":  # of others transformers counts no frames, or gives a repeated one once
            usual, told = load_video(path, backend="pyav")
            assert np.array_equal(video, usual)
            assert fetch(path)[1].fps == told.fps
            assert fetch(path)[1].duration == told.duration


def test_a_video_that_is_cut_off_is_an_error_of_the_row(monkeypatch):
    fetch = pipeline(monkeypatch).video_processor.fetch_videos
    data = VIDEOS["avi"]
    with open_video_file(data[: len(data) * 2 // 3]) as path, pytest.raises(ValueError):
        fetch(path, sample_indices_fn=lambda metadata: np.arange(6))


@pytest.mark.parametrize("decoder", ["torchcodec", "torchvision"])
def test_a_decoder_that_is_there_stays(monkeypatch, decoder):
    assert pipeline(monkeypatch, decoder).video_processor.fetch_videos == "its own"
