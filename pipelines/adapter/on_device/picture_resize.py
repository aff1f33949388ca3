"""Resize pictures on the device of the model, for hosts whose CPUs are slower than it.

Pillow resizes the width, rounds to 8 bits, and then resizes the height. Torch's antialiased
`interpolate` weighs pixels as Pillow does, so that numbers differ from Pillow's by one level of 255
where a sum is at the edge between two levels, and by two in one pixel of many thousands, where both
sums are. A model in 16 bits rounds its pixels by as much.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..images.level_processor import ImageLevels, are_equal, draw_files, find_size
from .side_stream import SideStream, is_faster, rounds_on_gpu

# Pillow's filters that torch has, by Pillow's number.
_MODES = {2: "bilinear", 3: "bicubic"}
# A larger picture would take too much of the device's memory, and stays on the CPU.
_MOST_PIXELS = 2**24
_PHOTO = (600, 800, 3)  # height, width and channels, where speed is measured


class DeviceProcessor:
    """Stands in for an image processor, and resizes on a device what the device can."""

    def __init__(self, on_cpu: Any, size: tuple[int, int], mode: str, stream: SideStream) -> None:
        """Stand in for the processor.

        Args:
            on_cpu: the processor.
            size: (width, height) of the result.
            mode: of `torch.nn.functional.interpolate`.
            stream: of the device.
        """
        self.on_cpu, self.mode, self.stream = on_cpu, mode, stream
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
        from torch.nn.functional import interpolate

        pixels = torch.from_numpy(picture).to(self.stream.device).permute(2, 0, 1)[None].float()
        for size in ((pixels.shape[2], self.width), (self.height, self.width)):
            if pixels.shape[2:] != size:
                pixels = interpolate(pixels, size=size, mode=self.mode, antialias=True)
                pixels = pixels.add_(0.5).floor_().clamp_(0, 255)
        return pixels[0].to(torch.uint8)


def _may_resize(picture: Any) -> bool:
    return picture.mode == "RGB" and picture.width * picture.height <= _MOST_PIXELS


def choose_resize(
    pipeline: Any, levels: ImageLevels, preprocess: Callable[[Any, bytes], list[Any]]
) -> ImageLevels:
    """Return the levels that are made faster: on the CPU, or on a GPU where that makes no odds.

    Args:
        pipeline: as it is.
        levels: those that are made on the CPU.
        preprocess: from a pipeline and an image file to the chunks of a row.
    """
    if not rounds_on_gpu(pipeline):
        return levels
    found = resize_on_device(pipeline, levels, preprocess, pipeline.device)
    return found if found is not None and _is_faster(found, levels) else levels


def resize_on_device(
    pipeline: Any, levels: ImageLevels, preprocess: Callable[[Any, bytes], list[Any]], device: Any
) -> ImageLevels | None:
    """Return levels that are made on a device, if they are the same but for one.

    Args are those of `choose_resize`, and the device.
    """
    size, mode = find_size(pipeline.image_processor), _find_mode(pipeline.image_processor)
    if size is None or mode is None:
        return None
    like, on_cpu = copy.copy(pipeline), levels.pipeline.image_processor
    try:
        like.image_processor = DeviceProcessor(on_cpu, size, mode, SideStream(device))
        for file in draw_files():
            usual, found = preprocess(levels.pipeline, file), preprocess(like, file)
            if not are_equal(usual, found, most=1):
                return None
    except Exception:  # a torch without this kernel
        return None
    return replace(levels, pipeline=like)


def _is_faster(on_device: ImageLevels, on_cpu: ImageLevels) -> bool:
    """Tell whether a photo is prepared faster on the device."""
    from PIL import Image

    photo = Image.fromarray(np.random.default_rng(0).integers(256, size=_PHOTO, dtype=np.uint8))
    return is_faster(
        lambda: on_device.pipeline.image_processor(photo, return_tensors="pt"),
        lambda: on_cpu.pipeline.image_processor(photo, return_tensors="pt"),
    )


def _find_mode(processor: Any) -> str | None:
    """Return torch's name of the filter by which a processor resizes, if torch has it."""
    try:
        return _MODES.get(int(processor.resample))
    except (AttributeError, TypeError, ValueError):
        return None
