"""Pictures and videos of very different sizes, made by rule."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

SIZES = [(40, 24), (18, 34), (32, 32), (21, 27), (120, 90), (24, 70), (33, 32), (16, 16)]


def picture(width: int, height: int, seed: int) -> Any:
    """A slope of colours, with rectangles upon it."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    slope = x[..., None] * rng.uniform(0, 200, 3) + y[..., None] * rng.uniform(0, 55, 3)
    pixels = slope.astype(np.uint8)
    for _ in range(5):
        left, top = rng.integers(0, width - 3), rng.integers(0, height - 3)
        w, h = rng.integers(3, 3 + width // 2), rng.integers(3, 3 + height // 2)
        pixels[top : top + h, left : left + w] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def pictures(count: int = len(SIZES), seed: int = 0) -> list[Any]:
    return [picture(*SIZES[i % len(SIZES)], seed * 1000 + i) for i in range(count)]


def png(image: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return sink.getvalue()


def video(width: int, height: int, frames: int, seed: int) -> bytes:
    """An MP4 in which one picture becomes another."""
    import av

    first, last = (np.asarray(picture(width, height, seed * 2 + i)) for i in (0, 1))
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for share in np.linspace(0, 1, frames):
            mixed = (first * (1 - share) + last * share).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(mixed, format="rgb24")))
        container.mux(stream.encode())
    return sink.getvalue()
