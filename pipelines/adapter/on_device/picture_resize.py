"""Resize pictures on the device of the model, for hosts whose CPUs are slower than it.

The numbers are exactly Pillow's: its weights are whole numbers of 2**-22, and so are its sums. It
resizes one axis, rounds to 8 bits, and then resizes the other (`src/libImaging/Resample.c` of
Pillow 13).
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..images.level_processor import ImageLevels, are_equal, count_threads, draw_files, find_size
from .side_stream import SideStream, is_faster, is_on_gpu

# A larger picture would take too much of the device's memory, and stays on the CPU.
_MOST_PIXELS = 2**24
_PHOTO = (800, 600)  # width and height, where speed is measured
_BITS = 22  # of a weight
_AT_ONCE = 16  # products of a pixel that are held


@dataclass(frozen=True)
class _Filter:
    """One of Pillow's filters.

    Attributes:
        reach: the distance of the farthest pixel that counts.
        weigh: from distances to weights.
    """

    reach: float
    weigh: Callable[[np.ndarray], np.ndarray]


def _weigh_bicubic(far: np.ndarray) -> np.ndarray:
    near = (1.5 * far - 2.5) * far * far + 1
    return np.where(far < 1, near, np.where(far < 2, (((far - 5) * far + 8) * far - 4) * -0.5, 0.0))


# By Pillow's number.
_FILTERS = {
    2: _Filter(1.0, lambda far: np.maximum(1.0 - far, 0.0)),
    3: _Filter(2.0, _weigh_bicubic),
}


@lru_cache(maxsize=1024)
def _find_weights(filter: _Filter, before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels of a line make each new one, and by which weights, as Pillow does.

    Both have the shape (pixels for a new one, after).
    """
    scale = before / after
    stretch = max(scale, 1.0)
    reach = filter.reach * stretch
    centers = (np.arange(after) + 0.5) * scale
    first = np.maximum((centers - reach + 0.5).astype(np.int32), 0)
    end = np.minimum((centers + reach + 0.5).astype(np.int32), before)
    places = first + np.arange(math.ceil(reach) * 2 + 1, dtype=np.int32)[:, None]
    weights = filter.weigh(np.abs(places - centers + 0.5) * (1.0 / stretch))
    weights = np.where(places < end, weights, 0.0)
    weights /= np.cumsum(weights, axis=0)[-1]  # added one by one, as the rounding depends on it
    whole = np.trunc(weights * 2**_BITS + np.where(weights < 0, -0.5, 0.5))
    return np.minimum(places, before - 1), whole.astype(np.int32)


class DeviceProcessor:
    """Stands in for an image processor, and resizes on a device what the device can."""

    def __init__(
        self, on_cpu: Any, size: tuple[int, int], resample: int, stream: SideStream
    ) -> None:
        """Stand in for the processor.

        Args:
            on_cpu: the processor.
            size: (width, height) of the result.
            resample: Pillow's number of a filter.
            stream: of the device.
        """
        self.on_cpu, self.filter, self.stream = on_cpu, _FILTERS[resample], stream
        self.width, self.height = size

    def __call__(self, images: Any, **keywords: Any) -> Any:
        from transformers import BatchFeature

        levels = None
        pictures = images if isinstance(images, list) else [images]
        # With other keywords it is asked for other numbers.
        if keywords.keys() == {"return_tensors"} and all(map(_may_resize, pictures)):
            levels = self.stream.compute(lambda: self.resize(pictures))
        if levels is None:
            return self.on_cpu(images, **keywords)
        return BatchFeature({"pixel_values": levels})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.on_cpu, name)

    def resize(self, pictures: list[Any]) -> Any:
        """Return the levels of RGB pictures: uint8, (pictures, 3, height, width), on the CPU."""
        import torch

        return self.stream.to_host(torch.stack([self._resize(np.array(one)) for one in pictures]))

    def _resize(self, picture: np.ndarray) -> Any:
        import torch

        pixels = torch.from_numpy(picture).to(self.stream.device).permute(2, 0, 1).contiguous()
        sizes = {1: self.height, 2: self.width}
        for axis in (1, 2) if self._begins_with_height(picture) else (2, 1):
            if pixels.shape[axis] != sizes[axis]:
                pixels = self._resize_axis(pixels, axis, sizes[axis])
        return pixels

    def _begins_with_height(self, picture: np.ndarray) -> bool:
        """Tell whether Pillow does: from 13 on where this leaves it less to do."""
        import PIL

        height, width, _ = picture.shape
        less = height - self.height
        is_new = int(PIL.__version__.partition(".")[0]) >= 13
        return is_new and less > 0 and less > 2 * (width - self.width)

    def _resize_axis(self, pixels: Any, axis: int, size: int) -> Any:
        """Return levels, uint8 of shape (channels, height, width), with one axis resized."""
        import torch

        found = _find_weights(self.filter, pixels.shape[axis], size)
        places, weights = (torch.from_numpy(one).to(pixels.device) for one in found)
        before, after = pixels.shape[:axis], pixels.shape[axis + 1 :]
        sums = torch.full(
            (*before, size, *after), 2 ** (_BITS - 1), dtype=torch.int32, device=pixels.device
        )
        for some, own in zip(places.split(_AT_ONCE), weights.split(_AT_ONCE), strict=True):
            taken = pixels.index_select(axis, some.flatten()).view(*before, *some.shape, *after)
            products = taken * own.view(*own.shape, *(1 for _ in after))
            sums += products.sum(axis, dtype=torch.int32)
        return (sums >> _BITS).clamp_(0, 255).to(torch.uint8)


def _may_resize(picture: Any) -> bool:
    return picture.mode == "RGB" and picture.width * picture.height <= _MOST_PIXELS


def choose_resize(
    pipeline: Any, levels: ImageLevels, preprocess: Callable[[Any, bytes], list[Any]]
) -> ImageLevels:
    """Return the levels that are made faster: on the CPU, or on the pipeline's GPU.

    Args:
        pipeline: as it is.
        levels: those that are made on the CPU.
        preprocess: from a pipeline and an image file to the chunks of a row.
    """
    if not is_on_gpu(pipeline):
        return levels
    found = resize_on_device(pipeline, levels, preprocess, pipeline.device)
    if found is None:
        return levels
    photo = _make_photo()
    is_better = is_faster(
        lambda: preprocess(found.pipeline, photo),
        lambda: preprocess(levels.pipeline, photo),
        count_threads(pipeline),
    )
    return found if is_better else levels


def resize_on_device(
    pipeline: Any, levels: ImageLevels, preprocess: Callable[[Any, bytes], list[Any]], device: Any
) -> ImageLevels | None:
    """Return levels that are made on a device, if they are the same.

    Args are those of `choose_resize`, and the device.
    """
    size, resample = find_size(pipeline.image_processor), _find_filter(pipeline.image_processor)
    if size is None or resample is None:
        return None
    like, on_cpu = copy.copy(pipeline), levels.pipeline.image_processor
    try:
        like.image_processor = DeviceProcessor(on_cpu, size, resample, SideStream(device))
        for file in draw_files():
            if not are_equal(preprocess(levels.pipeline, file), preprocess(like, file)):
                return None
    except Exception:  # a torch without these kernels
        return None
    return replace(levels, pipeline=like)


def _make_photo() -> bytes:
    """Make a JPEG that takes as long to decode as a photo, which is smoother than noise."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(256, size=(75, 100, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(_PHOTO, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def _find_filter(processor: Any) -> int | None:
    """Return Pillow's number of the filter by which a processor resizes, if it is known here."""
    try:
        number = int(processor.resample)
    except (AttributeError, TypeError, ValueError):
        return None
    return number if number in _FILTERS else None
