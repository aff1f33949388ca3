"""Encode images of a chunk as bytes, from which exactly the model's numbers can be made again.

An image processor rescales and normalizes pixels of 256 levels, so each channel of its output
holds at most 256 different numbers. A chunk carries the levels, as uint8, and for each channel the
number of each level: a quarter of float32. All other values are carried as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pipemill.actors.device_transfer import to_device

LEVELS = 256
_SMALLEST = 4 * LEVELS  # numbers in a channel; with fewer, its palette outweighs what is saved


@dataclass(frozen=True)
class Scale:
    """Makes numbers of levels, per channel: (level * factor - mean) / std."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class PixelLevels:
    """A float tensor of shape (…, channels, height, width).

    Attributes:
        codes: its levels, of the same shape.
        palette: the number of each level, shape (channels, 256).
        dtype: that of the tensor.
    """

    codes: np.ndarray
    palette: np.ndarray
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def tensor(self, device: Any) -> Any:
        """Return the tensor, on that device."""
        import torch

        device = torch.device(device)
        codes = to_device(self.codes, device)
        palette = to_device(self.palette, device).to(getattr(torch, self.dtype))
        channels = [
            numbers.index_select(0, codes.select(-3, c).flatten().int())
            for c, numbers in enumerate(palette)
        ]
        shape = codes.select(-3, 0).shape
        return torch.stack([one.view(shape) for one in channels], dim=-3)


def scale_of(pipeline: Any) -> Scale | None:
    """Return how the pipeline's image processor makes numbers of levels; None if unknown."""
    names = ("image_processor", "video_processor", "feature_extractor")
    parts: list[Any] = [getattr(pipeline, name, None) for name in names]
    parts.append(getattr(getattr(pipeline, "processor", None), "image_processor", None))
    for part in parts:
        factor = getattr(part, "rescale_factor", None)
        if not (factor and getattr(part, "do_rescale", False)):
            continue
        if not getattr(part, "do_normalize", False):
            return Scale(float(factor), (), ())
        mean, std = part.image_mean, part.image_std
        if isinstance(mean, list | tuple) and isinstance(std, list | tuple):
            return Scale(float(factor), tuple(mean), tuple(std))
    return None


def quantize_images(
    chunk: Any, scale: Scale | None, palette: np.ndarray | None = None, dtype: str = "float32"
) -> Any:
    """Return a copy of the chunk in which images are `PixelLevels`, if that loses nothing.

    Args:
        chunk: the inputs of `_forward`.
        scale: how images that are numbers were made.
        palette: the number of each level, of images that are levels; see `level_processor`.
        dtype: of the numbers that are made of levels.
    """

    def change(value: Any) -> Any:
        if palette is not None and str(getattr(value, "dtype", "")) == "torch.uint8":
            return PixelLevels(value.numpy(), palette, dtype)
        return value if scale is None else _to_levels(value, scale)

    return chunk if scale is None and palette is None else _change_each(chunk, change)


def dequantize(chunk: Any, device: Any) -> Any:
    """Return the chunk as it was, with its images on the device.

    chunk: may be several, stacked: then a list of `PixelLevels`, some of which may be tensors,
        becomes one tensor.
    """

    def change(value: Any) -> Any:
        if isinstance(value, PixelLevels):
            return value.tensor(device)
        if isinstance(value, list) and any(isinstance(v, PixelLevels) for v in value):
            return join_levels(value, device)
        if isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
            return [dequantize(one, device) for one in value]
        return value

    return _change_each(chunk, change)


def join_levels(several: list[Any], device: Any) -> Any:
    """Return the tensors of several, joined on their first axis: at once if they can be.

    several: `PixelLevels`, and tensors of images that could not be encoded so.
    """
    import torch

    levels = [one for one in several if isinstance(one, PixelLevels)]
    first = levels[0]
    equal = all(np.array_equal(one.palette, first.palette) for one in levels)
    if equal and len(levels) == len(several):
        codes = np.concatenate([one.codes for one in levels])
        return PixelLevels(codes, first.palette, first.dtype).tensor(device)
    return torch.cat(
        [one.tensor(device) if isinstance(one, PixelLevels) else one.to(device) for one in several]
    )


def _change_each(value: Any, change: Any) -> Any:
    if not isinstance(value, Mapping):
        return change(value)
    changed: Any = copy.copy(value)  # of the same class: pipelines read its attributes
    for name, inner in value.items():
        changed[name] = _change_each(inner, change)
    return changed


def _to_levels(value: Any, scale: Scale) -> Any:
    """Return the value as `PixelLevels` if they give it back exactly; else the value."""
    import torch

    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    if not isinstance(value, torch.Tensor) or value.dtype not in dtypes or value.dim() < 3:
        return value
    count = value.shape[-3]
    mean, std = scale.mean or (0.0,) * count, scale.std or (1.0,) * count
    if not len(mean) == len(std) == count or value.numel() < count * _SMALLEST:
        return value
    codes = np.empty(value.shape, np.uint8)
    palette = np.zeros((count, LEVELS), np.float32)
    for c in range(count):
        numbers = value.select(-3, c).float()
        wanted = ((numbers * std[c] + mean[c]) / scale.factor).round()
        levels = wanted.clamp(0, LEVELS - 1).to(torch.uint8).numpy()
        exact = numbers.numpy()
        palette[c][levels] = exact
        if not np.array_equal(palette[c][levels], exact):
            return value
        codes[..., c, :, :] = levels
    return PixelLevels(codes, palette, str(value.dtype).removeprefix("torch."))
