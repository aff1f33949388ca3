"""Images in chunks: a quarter of the bytes, and exactly the same numbers afterwards."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from pipemill.pipelines.adapter.images.chunk_encoding import (
    PixelLevels,
    Scale,
    dequantize,
    quantize_images,
    scale_of,
)

pytest.importorskip("PIL")

from pipemill.pipelines.engines.stacking import stack

from tests.support import made_media

PROCESSORS = [
    ("ViTImageProcessorPil", {}),
    ("CLIPImageProcessorPil", {}),
    ("DetrImageProcessorPil", {}),
    ("VideoMAEImageProcessorPil", {}),
    ("ViTImageProcessorPil", {"do_normalize": False}),
    ("ConvNextImageProcessorPil", {"image_mean": [0.1, 0.2, 0.3], "image_std": [3.0, 0.01, 1.0]}),
]


def _processed(name, settings, dtype=torch.float32):
    import transformers

    processor = getattr(transformers, name)(**settings)
    image = made_media.picture(300, 200, 4)
    given = [image, image.rotate(180)] if name.startswith("Video") else image
    return processor, processor(given, return_tensors="pt").to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "settings"), PROCESSORS)
def test_a_chunk_is_smaller_and_the_same(name, settings, dtype):
    processor, chunk = _processed(name, settings, dtype)
    small = quantize_images(chunk, scale_of(SimpleNamespace(image_processor=processor)))
    assert isinstance(small["pixel_values"], PixelLevels)
    assert type(small) is type(chunk)
    again = dequantize(pickle.loads(pickle.dumps(small, 5)), torch.device("cpu"))
    assert type(again) is type(chunk)
    assert again.keys() == chunk.keys()
    for key, value in chunk.items():
        assert again[key].dtype == value.dtype
        assert torch.equal(again[key], value)
    if "pixel_mask" not in chunk:
        saved = len(pickle.dumps(chunk, 5)) / len(pickle.dumps(small, 5))
        assert saved > (3.7 if dtype == torch.float32 else 1.85)


def test_what_is_not_made_of_levels_stays_as_it_is():
    scale = Scale(1 / 255, (0.5,) * 3, (0.5,) * 3)
    _, chunk = _processed("ViTImageProcessorPil", {})
    pixels = chunk["pixel_values"]
    nan = pixels.clone()
    nan[0, 0, 0, 0] = float("nan")
    other = {
        "noise": torch.randn(1, 3, 64, 64),
        "one_off": torch.cat([pixels[..., 1:], pixels[..., :1] + 1e-3], -1),
        "padded": torch.nn.functional.pad(pixels, (0, 9)) + 1e-9,
        "nan": nan,
        "grey": pixels[:, :1],
        "ids": torch.arange(5000).reshape(1, 1, 50, 100),
        "double": pixels.double(),
        "small": pixels[..., :8, :8],
        "text": ["a", "b"],
    }
    same = quantize_images(other, scale)
    assert all(same[name] is value for name, value in other.items())
    assert quantize_images(chunk, None) is chunk
    assert scale_of(SimpleNamespace(image_processor=None)) is None
    assert scale_of(SimpleNamespace(image_processor=SimpleNamespace(rescale_factor=None))) is None


def test_images_of_a_nested_chunk():
    _, chunk = _processed("ViTImageProcessorPil", {})
    scale = Scale(1 / 255, (0.5,) * 3, (0.5,) * 3)
    small = quantize_images({"model_inputs": chunk, "sizes": [(1, 2)]}, scale)
    assert isinstance(small["model_inputs"]["pixel_values"], PixelLevels)
    again = dequantize(small, "cpu")
    assert torch.equal(again["model_inputs"]["pixel_values"], chunk["pixel_values"])


@pytest.mark.parametrize("first", ["levels", "numbers"])
def test_images_of_which_some_are_no_levels_share_a_forward_pass(first):
    processor, inputs = _processed("ViTImageProcessorPil", {})
    scale = scale_of(SimpleNamespace(image_processor=processor))
    numbers = {"pixel_values": inputs["pixel_values"] + torch.rand(inputs["pixel_values"].shape)}
    several = [dict(inputs), numbers, dict(inputs)][first == "numbers" :]
    chunks = [quantize_images(one, scale) for one in several]
    assert {type(chunk["pixel_values"]) for chunk in chunks} == {PixelLevels, torch.Tensor}
    together = dequantize(stack(chunks), "cpu")["pixel_values"]
    assert torch.equal(together, torch.cat([one["pixel_values"] for one in several]))


def test_chunks_of_a_task_carry_levels(models):
    import pyarrow as pa
    from pipemill.pipelines.loading.model import Model
    from pipemill.pipelines.loading.task_loader import LoadTask

    load = LoadTask(
        task="object-detection",
        model=Model(path=models["object-detection"]),
        columns=(("image", "image"),),
        weights=False,
    )
    rows = pa.table({"image": [made_media.png(made_media.picture(400, 200, i)) for i in (1, 2)]})
    for row in load().task.expand(rows).to_pylist():
        assert isinstance(pickle.loads(row[0]["inputs"])["pixel_values"], PixelLevels)
