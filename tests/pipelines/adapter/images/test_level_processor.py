"""Images whose numbers are made by the model's side: found where it is exact, and nowhere else."""

from __future__ import annotations

import pickle
import threading
from importlib.util import find_spec

import pyarrow as pa
import pytest
import torch

pytest.importorskip("PIL")

from pipemill.pipelines.adapter.images.chunk_encoding import PixelLevels, dequantize
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import made_media

# A task's model, whether all its images have one shape, and whether they are only resized.
LEFT = [
    ("image-classification", "", True, True),
    ("image-feature-extraction", "-convolutions", True, False),
    ("image-segmentation", "", True, True),
    ("depth-estimation", "", True, True),
    ("object-detection", "", False, False),
    ("object-detection", "-yolos", False, False),
]


def _load(task, path, dtype="float32"):
    model = Model(path=str(path), dtype=dtype)
    return LoadTask(task=task, model=model, columns=(("image", "image"),))().task


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("task", "which", "one_shape", "resized"), LEFT)
def test_chunks_are_those_of_the_processor(models, task, which, one_shape, resized, dtype):
    adapter = _load(task, models[task + which], dtype)
    assert adapter.levels is not None
    assert (adapter.levels.shape is not None) is one_shape
    by_pillow = resized and find_spec("torchvision") is None
    assert (adapter.levels.pipeline.image_processor.size is not None) is by_pillow
    # Of one shape, so that they may be stacked.
    pictures = [made_media.picture(61, 47, seed) for seed in (3, 4)]
    rows = pa.table({"image": [made_media.png(one) for one in pictures]})
    chunks = [pickle.loads(row[0]["inputs"]) for row in adapter.expand(rows).to_pylist()]
    assert all(isinstance(chunk["pixel_values"], PixelLevels) for chunk in chunks)
    usual = [adapter.pipeline.preprocess(one) for one in pictures]
    assert not torch.equal(usual[0]["pixel_values"], usual[1]["pixel_values"])
    for chunk, expected in zip(chunks, usual, strict=True):
        pixels = dequantize(chunk, "cpu")["pixel_values"]
        assert pixels.dtype == expected["pixel_values"].dtype
        assert torch.equal(pixels, expected["pixel_values"])
    stacked = dequantize({"pixel_values": [chunk["pixel_values"] for chunk in chunks]}, "cpu")
    assert torch.equal(stacked["pixel_values"], torch.cat([one["pixel_values"] for one in usual]))


def test_levels_of_unequal_palettes_are_joined(models):
    adapter = _load("image-classification", models["image-classification"])
    codes = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8).numpy()
    several = [PixelLevels(codes, adapter.levels.palette * f, "float32") for f in (1, 2)]
    pixels = dequantize({"pixel_values": several}, "cpu")["pixel_values"]
    assert torch.equal(pixels[0] * 2, pixels[1])


def test_a_processor_that_pads_numbers_keeps_them(models, tmp_path):
    import transformers as t

    path = models["object-detection"]
    t.AutoModelForObjectDetection.from_pretrained(path).save_pretrained(tmp_path)
    size = {"shortest_edge": 24, "longest_edge": 48}
    pad = {"height": 48, "width": 48}  # with zeros, which are no level's number
    t.DetrImageProcessorPil(size=size, pad_size=pad).save_pretrained(tmp_path)
    adapter = _load("object-detection", tmp_path)
    assert adapter.levels is None
    assert adapter.pipeline.image_processor.pad_size == pad


def test_a_task_that_computes_before_its_forward_pass_gets_numbers(models):
    assert _load("keypoint-matching", models["keypoint-matching"]).levels is None


def test_images_are_preprocessed_on_threads_in_order(models, monkeypatch):
    adapter = _load("image-classification", models["image-classification"])
    files = [made_media.png(made_media.picture(61, 47, seed)) for seed in range(8)]
    rows = pa.table({"image": files})
    expected = adapter.expand(rows)
    met = threading.Barrier(2, timeout=10)
    chunks = adapter._make_chunks
    monkeypatch.setattr(adapter, "_make_chunks", lambda row: (met.wait(), chunks(row))[1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert adapter.expand(rows) == expected
    monkeypatch.setattr(adapter, "_make_chunks", chunks)
    with pytest.raises(ValueError, match="cut off"):
        adapter.expand(pa.table({"image": [*files, files[0][:200]]}))
