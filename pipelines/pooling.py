"""Several vectors as one."""

from __future__ import annotations

from typing import Any

POOLINGS = ("mean", "cls", "last", "max", "none")


def pooled(vectors: Any, pooling: str, normalize: bool = False) -> Any:
    """A numpy array of (vectors, width) as one of (width,); as it is for `none`."""
    import numpy as np

    if pooling == "none":
        return vectors
    vector = {
        "mean": lambda: vectors.mean(axis=0),
        "max": lambda: vectors.max(axis=0),
        "cls": lambda: vectors[0],
        "last": lambda: vectors[-1],
    }[pooling]()
    if normalize:
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return vector
