"""Images of a chunk as the bytes they were, and exactly the model's numbers again.

An image processor rescales and normalizes pixels of 256 levels, so each channel of what it makes
holds at most 256 different numbers. A chunk carries the levels, as uint8, and per channel the
number of each: a quarter of float32. What is not like that is carried as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_LEVELS = 256
_SMALLEST = 4 * _LEVELS  # numbers in a channel; with fewer, its palette outweighs what is saved


@dataclass(frozen=True)
class Scale:
    """From a level to a number, per channel: (level * factor - mean) / std."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class PixelLevels:
    """A float tensor of shape (…, channels, height, width).

    codes: its levels, of the same shape. palette: their numbers, shape (channels, 256).
    """

    codes: np.ndarray
    palette: np.ndarray
    dtype: str

    def tensor(self, device: Any) -> Any:
        import torch

        codes = torch.from_numpy(self.codes).to(device)
        palette = torch.from_numpy(self.palette).to(device, getattr(torch, self.dtype))
        channels = [
            numbers.index_select(0, codes.select(-3, c).flatten().int())
            for c, numbers in enumerate(palette)
        ]
        shape = codes.select(-3, 0).shape
        return torch.stack([one.view(shape) for one in channels], dim=-3)


def scale_of(pipeline: Any) -> Scale | None:
    """How the pipeline's image processor makes numbers of levels; None if it does not say."""
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


def quantize_images(chunk: Any, scale: Scale | None) -> Any:
    """A copy of the chunk in which images are `PixelLevels`, where that loses nothing."""
    return chunk if scale is None else _each(chunk, lambda value: _levels(value, scale))


def dequantize(chunk: Any, device: Any) -> Any:
    """The chunk as it was, its images on the device."""
    return _each(chunk, lambda v: v.tensor(device) if isinstance(v, PixelLevels) else v)


def _each(value: Any, change: Any) -> Any:
    if not isinstance(value, Mapping):
        return change(value)
    changed: Any = copy.copy(value)  # of its own class, of which pipelines ask attributes
    for name, inner in value.items():
        changed[name] = _each(inner, change)
    return changed


def _levels(value: Any, scale: Scale) -> Any:
    """The value as `PixelLevels` if they give it back exactly; else the value."""
    import torch

    kinds = (torch.float32, torch.bfloat16, torch.float16)
    if not isinstance(value, torch.Tensor) or value.dtype not in kinds or value.dim() < 3:
        return value
    count = value.shape[-3]
    mean, std = scale.mean or (0.0,) * count, scale.std or (1.0,) * count
    if not len(mean) == len(std) == count or value.numel() < count * _SMALLEST:
        return value
    codes = np.empty(value.shape, np.uint8)
    palette = np.zeros((count, _LEVELS), np.float32)
    for c in range(count):
        numbers = value.select(-3, c).float()
        wanted = ((numbers * std[c] + mean[c]) / scale.factor).round()
        levels = wanted.clamp(0, _LEVELS - 1).to(torch.uint8).numpy()
        exact = numbers.numpy()
        palette[c][levels] = exact
        if not np.array_equal(palette[c][levels], exact):
            return value
        codes[..., c, :, :] = levels
    return PixelLevels(codes, palette, str(value.dtype).removeprefix("torch."))
