"""Several vectors as one."""

from __future__ import annotations

from typing import Any

POOLINGS = ("mean", "cls", "last", "max", "none")


def pool_vectors(vectors: Any, poolings: tuple[str, ...], unpooled: int = 0) -> Any:
    """A numpy array of (tokens, width) by each pooling, one after the other: (poolings * width,).

    unpooled: how many of the first tokens are left out.
    """
    import numpy as np

    weights = np.arange(1, len(vectors) + 1)[unpooled:, None]
    read = vectors[unpooled:]

    def part(pooling: str) -> Any:
        if pooling == "mean_sqrt_len_tokens":
            return read.sum(axis=0) / np.sqrt(len(read))
        if pooling == "weightedmean":
            return (read * weights).sum(axis=0) / weights.sum()
        return pooled(read, pooling)

    return np.concatenate([part(pooling) for pooling in poolings])


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
