"""Media that are hardly any: the dead letter says so, before the words of a library."""

from __future__ import annotations

from importlib.util import find_spec

import pyarrow as pa
import pytest
from PIL import Image
from pipemill.actors.batch import Batch
from pipemill.actors.faults.load_errors import LoadError
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import made_media, tiny_audio


def failures(task, model, column, values, **more):
    columns = ((column, "x"),)
    load = LoadTask(task=task, model=Model(path=model), columns=columns, max_tokens=1, **more)
    return load().process(Batch(pa.table({"x": values}))).failures


def test_images(models):
    files = [made_media.png(Image.new("RGB", size)) for size in ((1, 300), (40, 40), (1, 1))]
    failed = failures("depth-estimation", models["depth-estimation"], "image", [*files, b"none"])
    assert sorted(failed) == [0, 2, 3]
    narrow = "column 'x': the image is 1 x 300 pixels, likely too narrow for this model: "
    assert failed[0].message.startswith(narrow)
    assert failed[2].error == "IndexError"
    small = "the image is 1 x 1 pixels, likely too small for this model: tuple index out of range"
    assert failed[2].message == f"column 'x': {small}"
    assert "format that pipemill does not read" in failed[3].message


def test_audio(models):
    files = [tiny_audio.wav(seconds, 1) for seconds in (0.01, 1.0)]
    failed = failures("audio-classification", models["audio-classification"], "audio", files)
    assert list(failed) == [0]
    assert failed[0].error == "RuntimeError"
    short = "the audio is 0.01 s long (160 samples at 16000 Hz), likely too short for this model: "
    assert failed[0].message.startswith(f"column 'x': {short}")


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
        [f"column 'x': the video {why}"] if why else []
    )


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ("{}", "'VJEPA2Config' object has no attribute 'num_frames'"),
        ('{"num_frames": 4}', r"VJEPA2ForVideoClassification\.forward\(\) missing 1 required"),
    ],
)
def test_a_model_of_another_kind_is_not_blamed_on_the_video(tmp_path, parameters, why):
    import transformers

    shape = {"crop_size": 16, "patch_size": 8, "frames_per_clip": 4, "num_pooler_layers": 1}
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.VJEPA2Config(**shape, **sizes, pred_hidden_size=12)
    transformers.VJEPA2ForVideoClassification(config).save_pretrained(tmp_path)
    transformers.VideoMAEImageProcessorPil(size={"shortest_edge": 16}).save_pretrained(tmp_path)
    file = made_media.video(16, 16, 4, seed=1)
    with pytest.raises(LoadError, match=f"made-up ones fail in the same way: .*Error: {why}"):
        failures("video-classification", str(tmp_path), "video", [file], parameters=parameters)
