"""Leave an image processor's last step to the model's device: it makes numbers of 256 levels.

A processor resizes 8-bit pixels, and then rescales and normalizes each of them, in float64. Asked
only to resize, it is about 1 ms an image faster, and the numbers come of a table with one for each
level (`PixelLevels`), a micro-batch at a time. The table is the processor's own answer to a picture
of all levels, so the numbers are exactly the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...media.encode import encode_png
from .chunk_encoding import LEVELS, dequantize, quantize_images

# Of every kind of shape, since processors cut and pad.
_SHAPES = ((240, 320), (320, 240), (256, 256), (70, 90), (333, 501))


@dataclass(frozen=True)
class ImageLevels:
    """A pipeline whose `preprocess` leaves images as levels.

    Attributes:
        pipeline: a copy; only its image processor differs.
        palette: the number of each level, shape (channels, 256).
        shape: of an image's tensor, if it is the same for all images.
    """

    pipeline: Any
    palette: np.ndarray
    shape: tuple[int, ...] | None


class LevelProcessor:
    """Stands in for a pipeline's image processor, and does all but its last step."""

    def __init__(self, processor: Any, size: tuple[int, int] | None = None) -> None:
        """size: (width, height), if all that is left to do is to resize pictures to it."""
        self.processor, self.size = processor, size
        self.keywords = {n: False for n in ("do_rescale", "do_normalize") if hasattr(processor, n)}

    def __call__(self, images: Any, **keywords: Any) -> Any:
        if keywords.keys() != {"return_tensors"}:  # it may be asked for other numbers
            return self.processor(images, **keywords)
        if self.size is None:
            return self.processor(images, **self.keywords, **keywords)
        return self._resize(images if isinstance(images, list) else [images])

    def _resize(self, images: list[Any]) -> Any:
        """Resize without the copies of the whole picture that the processor makes."""
        import torch
        from transformers import BatchFeature

        resized = [one.resize(self.size, self.processor.resample) for one in images]
        levels = torch.from_numpy(np.stack([np.asarray(one) for one in resized]))
        return BatchFeature({"pixel_values": levels.permute(0, 3, 1, 2).contiguous()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)


def find_levels(pipeline: Any, preprocess: Callable[[Any, bytes], list[Any]]) -> ImageLevels | None:
    """Return the pipeline with levels, if pictures of several shapes become the same chunks.

    preprocess: from a pipeline and an image file to the chunks of a row.
    """
    processor = getattr(pipeline, "image_processor", None)
    if not getattr(processor, "do_rescale", False):
        return None
    found = (_try_size(pipeline, preprocess, size) for size in (find_size(processor), None))
    return next((levels for levels in found if levels is not None), None)


def count_threads(pipeline: Any) -> int:
    """Return how many images are preprocessed at once.

    Decoding and resizing leave the interpreter's lock alone. Tokenizers are not for several
    threads.
    """
    import torch

    return 1 if pipeline.tokenizer is not None else torch.get_num_threads()


def find_size(processor: Any) -> tuple[int, int] | None:
    """Return the (width, height) that the processor seems to make of every picture."""
    try:
        return processor.size["width"], processor.size["height"]
    except (AttributeError, KeyError, TypeError):
        return None


def _try_size(
    pipeline: Any,
    preprocess: Callable[[Any, bytes], list[Any]],
    size: tuple[int, int] | None,
) -> ImageLevels | None:
    like, shapes = copy.copy(pipeline), set()
    like.image_processor = LevelProcessor(pipeline.image_processor, size)
    dtype = str(pipeline.dtype).removeprefix("torch.")
    try:
        palette = _make_palette(pipeline.image_processor)
        for file in draw_files():
            usual, levels = preprocess(pipeline, file), preprocess(like, file)
            small = [quantize_images(chunk, None, palette, dtype) for chunk in levels]
            if not are_equal(usual, [dequantize(chunk, "cpu") for chunk in small]):
                return None
            shapes.add(tuple(usual[0]["pixel_values"].shape[1:]))
    except Exception:  # a processor without these keywords, a task that needs more than an image
        return None
    return ImageLevels(like, palette, shapes.pop() if len(shapes) == 1 else None)


def draw_files() -> Iterator[bytes]:
    """Yield image files of several shapes."""
    rng = np.random.default_rng(0)
    for shape in _SHAPES:
        yield encode_png(rng.integers(256, size=(*shape, 3), dtype=np.uint8))


def _make_palette(processor: Any) -> np.ndarray:
    """Return the processor's number for each level, shape (channels, 256)."""
    from PIL import Image

    ramp = np.zeros((LEVELS, LEVELS, 3), np.uint8) + np.arange(LEVELS, dtype=np.uint8)[:, None]
    steps = ("do_resize", "do_center_crop", "do_pad")
    as_it_is = {name: False for name in steps if hasattr(processor, name)}
    found = processor(Image.fromarray(ramp), return_tensors="pt", **as_it_is)
    return np.ascontiguousarray(found["pixel_values"][0, :, 0, :].numpy())


def are_equal(one: Any, other: Any) -> bool:
    """Tell whether two chunks, or lists of them, hold the same."""
    import torch

    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(are_equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(are_equal, one, other))
    return bool(one == other)
