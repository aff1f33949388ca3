"""Media that are hardly any: the dead letter says so, before the words of a library."""

from __future__ import annotations

from importlib.util import find_spec

import pyarrow as pa
import pytest
from PIL import Image
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import made_media, tiny_audio


def failures(task, model, column, values):
    load = LoadTask(task=task, model=Model(path=model), columns=((column, "x"),), max_tokens=1)
    return load().process(Batch(pa.table({"x": values}))).failures


def test_images(models):
    files = [made_media.png(Image.new("RGB", size)) for size in ((1, 300), (40, 40), (1, 1))]
    failed = failures("depth-estimation", models["depth-estimation"], "image", [*files, b"none"])
    assert sorted(failed) == [0, 2, 3]
    narrow = "the image is 1 x 300 pixels, likely too narrow for this model: "
    assert failed[0].message.startswith(narrow)
    assert failed[2].error == "IndexError"
    small = "the image is 1 x 1 pixels, likely too small for this model: tuple index out of range"
    assert failed[2].message == small
    assert "format that pipemill does not read" in failed[3].message


def test_audio(models):
    files = [tiny_audio.wav(seconds, 1) for seconds in (0.01, 1.0)]
    failed = failures("audio-classification", models["audio-classification"], "audio", files)
    assert list(failed) == [0]
    assert failed[0].error == "RuntimeError"
    short = "the audio is 0.01 s long (160 samples at 16000 Hz), likely too short for this model: "
    assert failed[0].message.startswith(short)


_by_pillow = pytest.mark.skipif(
    find_spec("torchvision") is not None, reason="torchvision's processor takes it"
)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((16, 16, 1), "has 1 frame, likely too few"),
        ((16, 16, 3), "has 3 frames, likely too few"),
        pytest.param((64, 4, 20), "is 64 x 4 pixels, likely too small", marks=_by_pillow),
        ((16, 16, 20), None),
    ],
)
def test_videos(models, shape, why):
    model, file = models["video-classification"], made_media.video(*shape, seed=1)
    failed = failures("video-classification", model, "video", [file])
    assert [failure.message.split(" for this model: ")[0] for failure in failed.values()] == (
        [f"the video {why}"] if why else []
    )
