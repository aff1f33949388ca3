"""Pictures that are resized by torch, held against Pillow; here on the CPU, as on any device."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image
from pipemill.pipelines.adapter.on_device.picture_resize import (
    DeviceProcessor,
    choose_resize,
    resize_on_device,
)
from pipemill.pipelines.adapter.on_device.side_stream import SideStream
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import made_media

SHAPES = [(600, 800), (240, 320), (70, 90), (333, 501), (16, 24), (100, 2000), (3, 5), (1, 1)]


def _draw_picture(shape, seed=0):
    """Return a picture of noise, and of edges, which bicubic filters overshoot."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(256, size=(*shape, 3), dtype=np.uint8)
    pixels[: shape[0] // 2] = np.where(pixels[: shape[0] // 2] > 127, 255, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(224, 224), (16, 24), (48, 31)])
@pytest.mark.parametrize(
    ("mode", "filter"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
def test_levels_are_those_of_pillow_but_for_one(shape, size, mode, filter):
    pictures = [_draw_picture(shape, seed) for seed in (0, 1)]
    found = DeviceProcessor(None, size, mode, SideStream("cpu")).resize(pictures)
    assert found.dtype == torch.uint8
    expected = np.stack([np.asarray(one.resize(size, filter)) for one in pictures])
    off = np.abs(found.permute(0, 2, 3, 1).numpy().astype(int) - expected)
    # By two where both passes are at the edge of a level.
    assert off.max() <= 2
    assert (off > 1).mean() < 1e-3
    assert (off > 0).mean() < 0.1


def test_what_the_device_cannot_is_left_to_the_cpu(monkeypatch):
    asked = []

    def on_cpu(images, **keywords):
        asked.append((images, keywords))
        return "from the CPU"

    processor = DeviceProcessor(on_cpu, (8, 8), "bilinear", SideStream("cpu"))
    picture = _draw_picture((20, 30))
    assert processor(picture, return_tensors="pt")["pixel_values"].shape == (1, 3, 8, 8)
    assert not asked
    assert processor(picture.convert("L"), return_tensors="pt") == "from the CPU"
    assert processor(picture, return_tensors="pt", do_pad=True) == "from the CPU"
    assert processor(_draw_picture((5000, 5000)), return_tensors="pt") == "from the CPU"

    def fail(*arguments, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("torch.nn.functional.interpolate", fail)
    assert processor(picture, return_tensors="pt") == "from the CPU"
    assert [keywords.keys() for _, keywords in asked] == [
        {"return_tensors"}, {"return_tensors", "do_pad"}, {"return_tensors"}, {"return_tensors"},
    ]  # fmt: skip


def _load(task, path):
    model = Model(path=str(path), dtype="float32")
    return LoadTask(task=task, model=model, columns=(("image", "image"),))().task


@pytest.mark.parametrize("task", ["image-classification", "image-segmentation", "depth-estimation"])
def test_a_pipeline_resizes_on_the_device_where_levels_are_the_same(models, task):
    adapter = _load(task, models[task])

    def preprocess(pipeline, file):
        with adapter.open_row({"image": file}) as prepared:
            chunks = pipeline.preprocess(prepared)
            return list(chunks) if adapter.forwards.chunked else [chunks]

    found = resize_on_device(adapter.pipeline, adapter.levels, preprocess, "cpu")
    file = made_media.png(made_media.picture(61, 47, 3))
    usual, levels = preprocess(adapter.levels.pipeline, file), preprocess(found.pipeline, file)
    assert levels[0].keys() == usual[0].keys()
    one, other = levels[0]["pixel_values"], usual[0]["pixel_values"]
    assert one.dtype == other.dtype == torch.uint8
    assert (one.int() - other.int()).abs().max() <= 1
    assert choose_resize(adapter.pipeline, adapter.levels, preprocess) is adapter.levels
    if not torch.cuda.is_available():
        assert resize_on_device(adapter.pipeline, adapter.levels, preprocess, "cuda:0") is None
    # Another filter than the processor's is found out.
    processor = copy.copy(adapter.pipeline.image_processor)
    processor.resample = {2: 3, 3: 2}[int(processor.resample)]
    other = copy.copy(adapter.pipeline)
    other.image_processor = processor
    assert resize_on_device(other, adapter.levels, preprocess, "cpu") is None
