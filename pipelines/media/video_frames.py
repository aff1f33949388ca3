"""Frames of videos by PyAV, where transformers has nothing to decode them with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .av_container import Unusable, open_container


def let_pyav_decode(pipeline: Any) -> None:
    """Give the pipeline's video processor frames by PyAV if there is no other decoder.

    Such processors need torchvision, and decode by torchcodec, which needs an FFmpeg of the
    system, or by torchvision before 0.26. Without torchvision the pipeline itself uses PyAV.
    """
    of_processor = getattr(getattr(pipeline, "processor", None), "video_processor", None)
    for processor in (getattr(pipeline, "video_processor", None), of_processor):
        if processor is not None and not _has_decoder():
            processor.fetch_videos = _fetch


def _has_decoder() -> bool:
    try:
        importlib.import_module("torchcodec")
    except Exception:  # also where it finds no FFmpeg, or does not fit torch
        return hasattr(importlib.import_module("torchvision.io"), "read_video")
    return True


def _fetch(videos: Any, sample_indices_fn: Callable[..., Any] | None = None) -> Any:
    """Return a path's frames and metadata; of a list of paths, a list of each."""
    if isinstance(videos, list):
        return list(zip(*[_fetch(one, sample_indices_fn) for one in videos], strict=True))
    return _read_frames(videos, sample_indices_fn)


def _read_frames(path: str, sample_indices_fn: Callable[..., Any] | None) -> tuple[Any, Any]:
    """Return frames, shape (frames, height, width, 3), and their `VideoMetadata`."""
    from transformers.video_utils import VideoMetadata

    with open_container(path, "video") as container:
        stream = container.streams.video[0]
        # Counted: a header may lack their number, as that of WebM does.
        count = sum(1 for packet in container.demux(stream) if packet.size)
        rate = float(stream.average_rate or stream.guessed_rate or 1)
        metadata = VideoMetadata(
            total_num_frames=count,
            fps=rate,
            width=stream.width,
            height=stream.height,
            duration=count / rate,
            video_backend="pyav",
        )
    indices = np.arange(count)
    if sample_indices_fn is not None:  # it says what is wrong with a video that is too short
        indices = np.asarray(sample_indices_fn(metadata=metadata))
    wanted, found, decoded = set(indices.tolist()), {}, 0
    with open_container(path, "video") as container:
        for number, frame in enumerate(container.decode(video=0)):
            decoded = number + 1
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
            if len(found) == len(wanted):
                break
        if len(found) < len(wanted):
            raise Unusable(f"of {count} frames only {decoded} can be decoded")
    metadata.frames_indices = indices
    return np.stack([found[number] for number in indices.tolist()]), metadata
