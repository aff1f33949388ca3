"""Pictures that are resized by torch, held against Pillow; here on the CPU, as on any device."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pipemill.pipelines.adapter.images.level_processor import find_levels
from pipemill.pipelines.adapter.on_device.picture_resize import (
    DeviceProcessor,
    choose_resize,
    resize_on_device,
)
from pipemill.pipelines.adapter.on_device.side_stream import SideStream
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import made_media

# Pillow 13 resizes the height of the last two first.
SHAPES = [
    (600, 800), (240, 320), (70, 90), (333, 501), (16, 24), (224, 90), (100, 2000), (3, 5), (1, 1),
    (320, 240), (2000, 100),
]  # fmt: skip


def _draw_picture(shape, seed=0):
    """Return a picture of noise, and of edges, which bicubic filters overshoot."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(256, size=(*shape, 3), dtype=np.uint8)
    pixels[: shape[0] // 2] = np.where(pixels[: shape[0] // 2] > 127, 255, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(224, 224), (16, 24), (48, 31)])
@pytest.mark.parametrize("filter", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_levels_are_those_of_pillow(shape, size, filter):
    pictures = [_draw_picture(shape, seed) for seed in range(3)]
    levels = DeviceProcessor(None, size, int(filter), SideStream("cpu")).resize(pictures)
    assert levels.dtype == torch.uint8
    expected = np.stack([np.asarray(picture.resize(size, filter)) for picture in pictures])
    assert np.array_equal(levels.permute(0, 2, 3, 1).numpy(), expected)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_levels_of_any_size_are_those_of_pillow(data):
    width, height, new_width, new_height = (
        data.draw(st.integers(1, most)) for most in (300, 300, 90, 90)
    )
    filter = data.draw(st.sampled_from([Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]))
    picture, size = _draw_picture((height, width)), (new_width, new_height)
    levels = DeviceProcessor(None, size, int(filter), SideStream("cpu")).resize([picture])
    assert np.array_equal(
        levels[0].permute(1, 2, 0).numpy(), np.asarray(picture.resize(size, filter))
    )


def test_what_the_device_cannot_is_left_to_the_cpu(monkeypatch):
    asked = []

    def on_cpu(images, **keywords):
        asked.append((images, keywords))
        return "from the CPU"

    processor = DeviceProcessor(on_cpu, (8, 8), 2, SideStream("cpu"))
    picture = _draw_picture((20, 30))
    assert processor(picture, return_tensors="pt")["pixel_values"].shape == (1, 3, 8, 8)
    assert not asked
    assert processor(picture.convert("L"), return_tensors="pt") == "from the CPU"
    assert processor(picture, return_tensors="pt", do_pad=True) == "from the CPU"
    assert processor(_draw_picture((5000, 5000)), return_tensors="pt") == "from the CPU"

    def fail(*arguments, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(DeviceProcessor, "_resize_axis", fail)
    assert processor(picture, return_tensors="pt") == "from the CPU"
    assert [keywords.keys() for _, keywords in asked] == [
        {"return_tensors"}, {"return_tensors", "do_pad"}, {"return_tensors"}, {"return_tensors"},
    ]  # fmt: skip


def _load(task, path):
    model = Model(path=str(path), dtype="float32")
    return LoadTask(task=task, model=model, columns=(("image", "image"),))().task


@pytest.mark.parametrize("side", [224, 384])
@pytest.mark.parametrize("resample", [2, 3])
def test_models_with_usual_sizes_may_resize_on_the_device(side, resample):
    from transformers import ViTImageProcessorPil

    class Pipeline:
        dtype, device = torch.float32, "cpu"
        image_processor = ViTImageProcessorPil(
            size={"height": side, "width": side}, resample=resample
        )

    def preprocess(pipeline, file):
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        return [dict(pipeline.image_processor(picture, return_tensors="pt"))]

    levels = find_levels(Pipeline(), preprocess)
    assert resize_on_device(Pipeline(), levels, preprocess, "cpu") is not None


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
    assert torch.equal(one, other)
    assert choose_resize(adapter.pipeline, adapter.levels, preprocess) is adapter.levels
    if not torch.cuda.is_available():
        assert resize_on_device(adapter.pipeline, adapter.levels, preprocess, "cuda:0") is None
    # Another filter than the processor's is found out.
    processor = copy.copy(adapter.pipeline.image_processor)
    processor.resample = {2: 3, 3: 2}[int(processor.resample)]
    other = copy.copy(adapter.pipeline)
    other.image_processor = processor
    assert resize_on_device(other, adapter.levels, preprocess, "cpu") is None
