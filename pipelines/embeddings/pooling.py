"""Pooling: several vectors, of tokens or of windows, as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..text.token_chunks import to_vector_array

POOLINGS = ("mean", "cls", "last", "max", "none")


def pool(vectors: Any, pooling: str, normalize: bool = False) -> Any:
    """Pool vectors to one.

    Args:
        vectors: a numpy array of shape (vectors, width).
        pooling: one of `POOLINGS`.
        normalize: whether to scale each resulting vector to length 1.

    Returns:
        Shape (width,); for "none" that of `vectors`.
    """
    pooled = {
        "none": lambda: vectors,
        "mean": lambda: vectors.mean(axis=0),
        "max": lambda: vectors.max(axis=0),
        "cls": lambda: vectors[0],
        "last": lambda: vectors[-1],
    }[pooling]()
    if normalize:
        pooled = pooled / np.maximum(np.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    return pooled


def pool_and_concatenate(vectors: Any, poolings: tuple[str, ...], unpooled: int = 0) -> Any:
    """Pool token vectors by each of several poolings, and concatenate the results.

    Args:
        vectors: a numpy array of shape (tokens, width).
        poolings: as in `EmbeddingRecipe.poolings`.
        unpooled: how many of the first tokens are left out.

    Returns:
        Shape (poolings * width,).
    """
    weights = np.arange(1, len(vectors) + 1)[unpooled:, None]
    read = vectors[unpooled:]

    def pool_part(pooling: str) -> Any:
        if pooling == "mean_sqrt_len_tokens":
            return read.sum(axis=0) / np.sqrt(len(read))
        if pooling == "weightedmean":
            return (read * weights).sum(axis=0) / weights.sum()
        return pool(read, pooling)

    return np.concatenate([pool_part(pooling) for pooling in poolings])


def pool_windows(
    vectors: np.ndarray, tokens: np.ndarray, counts: np.ndarray, rule: str
) -> np.ndarray:
    """Pool the vectors of each row's windows to one.

    Args:
        vectors: shape (windows, width), in the rows' order.
        tokens: tokens of each window, shape (windows,).
        counts: windows per row, shape (rows,), each at least 1.
        rule: "mean", weighted by the windows' tokens; "max" in each dimension; "last" for the
            last window's.

    Returns:
        Shape (rows, width).
    """
    if len(counts) == len(vectors):  # every row is a single window
        return vectors
    starts = np.cumsum(counts) - counts
    if rule == "max":
        return np.maximum.reduceat(vectors, starts)
    if rule == "last":
        return vectors[starts + counts - 1]
    weights = tokens[:, None].astype(np.float32)
    return np.add.reduceat(vectors * weights, starts) / np.add.reduceat(weights, starts)


def pair_vectors_with_counts(vectors: np.ndarray, counts: np.ndarray) -> pa.StructArray:
    """Build one output per chunk: its vector, and its number of tokens for `pool_windows`.

    Args:
        vectors: shape (chunks, width).
        counts: tokens of each chunk, shape (chunks,).
    """
    columns = [to_vector_array(vectors), pa.array(counts)]
    return pa.StructArray.from_arrays(columns, names=["vector", "tokens"])
