"""Small pictures of several shapes and kinds, made by rule, in `images/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "images"
NAMES = ["wide.png", "tall.png", "square.png", "grey.png", "clear.png"]


def make() -> None:
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, size) in enumerate(
        zip(NAMES, [(40, 24), (18, 34), (32, 32), (21, 27), (30, 30)], strict=True)
    ):
        image = _picture(*size, seed)
        if name == "grey.png":
            image = image.convert("L")
        if name == "clear.png":
            image.putalpha(128)
        image.save(FOLDER / name, optimize=True)


def _picture(width: int, height: int, seed: int) -> Image.Image:
    """A slope of colours, with a few rectangles upon it."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    slope = x[..., None] * rng.uniform(0, 200, 3) + y[..., None] * rng.uniform(0, 55, 3)
    pixels = slope.astype(np.uint8)
    for _ in range(4):
        left, top = rng.integers(0, width - 6), rng.integers(0, height - 6)
        w, h = rng.integers(3, 12, 2)
        pixels[top : top + h, left : left + w] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)
