"""Say of media that are hardly any what models can't take: libraries fail on them in odd words."""

from __future__ import annotations

from collections.abc import Sized
from itertools import islice
from typing import Any

from .av_container import open_container

# A patch of a model is 14 or 16 pixels wide. Its processor shrinks the narrow side to nothing.
_NARROW, _RATIO = 16, 40
_SHORT_S = 0.1
_FEW_FRAMES = 16


def describe_small_media(value: Any, kind: str, sampling_rate: int) -> str | None:
    """Return why a model may not take an image, audio or video; None if nothing is odd about it.

    Args:
        value: a picture of Pillow, samples of shape (samples,), or the path of a video.
        kind: "image", "audio" or "video".
        sampling_rate: Hz of the samples.
    """
    if kind == "image":
        return _describe_sides(value.width, value.height, kind)
    if kind == "audio":
        seconds = len(value) / sampling_rate
        if seconds >= _SHORT_S:
            return None
        return (
            f"the audio is {seconds:.2g} s long ({_count(value, 'sample')} at {sampling_rate} Hz), "
            "likely too short for this model"
        )
    with open_container(value, kind) as container:
        frames = list(islice(container.decode(video=0), _FEW_FRAMES))
    sides = _describe_sides(frames[0].width, frames[0].height, kind)
    if sides is not None or len(frames) == _FEW_FRAMES:
        return sides
    return f"the video has {_count(frames, 'frame')}, likely too few for this model"


def _count(items: Sized, name: str) -> str:
    return f"{len(items)} {name}" + "s" * (len(items) != 1)


def _describe_sides(width: int, height: int, kind: str) -> str | None:
    narrow, wide = sorted((width, height))
    if narrow >= _NARROW and wide <= narrow * _RATIO:
        return None
    how = "narrow" if wide > narrow * _RATIO else "small"
    return f"the {kind} is {width} x {height} pixels, likely too {how} for this model"
