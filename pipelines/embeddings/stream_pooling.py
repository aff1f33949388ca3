"""Pool the hidden states of a packed stream of chunks, on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.arrow_arrays import make_lists
from pipemill.actors.device_transfer import to_device


def pool_stream(
    states: Any, lengths: np.ndarray, poolings: tuple[str, ...], unpooled: np.ndarray
) -> Any:
    """Pool the hidden states of several chunks.

    Args:
        states: the chunks' states, one chunk after the other, shape (tokens, width).
        lengths: tokens of each chunk, shape (chunks,).
        poolings: as in `EmbeddingRecipe.poolings`; their vectors are concatenated.
        unpooled: how many of each chunk's first tokens are left out, shape (chunks,).

    Returns:
        Shape (chunks, width * poolings).
    """
    import torch

    pooled = [_pool(states, lengths, pooling, unpooled) for pooling in poolings]
    return pooled[0] if len(pooled) == 1 else torch.cat([part.float() for part in pooled], dim=1)


def _pool(states: Any, lengths: np.ndarray, pooling: str, unpooled: np.ndarray) -> Any:
    import torch

    ends = np.cumsum(lengths)
    starts = ends - lengths
    if pooling == "last":
        return states[to_device(ends - 1, states.device)]
    if pooling == "cls":
        first = starts + np.where(unpooled < lengths, unpooled, 0)
        return states[to_device(first, states.device)]
    positions = np.arange(len(states)) - np.repeat(starts, lengths)
    if unpooled.any():
        read = np.flatnonzero(positions >= np.repeat(unpooled, lengths))
        states, positions = states[to_device(read, states.device)], positions[read]
        lengths = lengths - unpooled
    counts = to_device(lengths, states.device)
    if pooling in ("mean", "max") and lengths.all():
        # unsafe: the lengths are right, and to check them would wait for the device.
        return torch.segment_reduce(states.float(), pooling, lengths=counts, axis=0, unsafe=True)
    if pooling == "max":
        reduced = torch.segment_reduce(states.float(), "max", lengths=counts, axis=0, unsafe=True)
        return torch.where(counts[:, None] > 0, reduced, -torch.inf)
    weights = positions + 1.0 if pooling == "weightedmean" else np.ones(len(positions))
    scale = to_device(weights.astype(np.float32), states.device)[:, None]
    sums = torch.segment_reduce(states.float() * scale, "sum", lengths=counts, axis=0, unsafe=True)
    total = torch.segment_reduce(scale, "sum", lengths=counts, axis=0, unsafe=True).clamp(min=1e-9)
    return sums / (total.sqrt() if pooling == "mean_sqrt_len_tokens" else total)


def list_token_vectors(array: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Convert shape (tokens, width) to one list of vectors per chunk, as long as the chunk."""
    ends = pa.array(np.arange(len(array) + 1) * array.shape[1], pa.int32())
    tokens = pa.ListArray.from_arrays(ends, pa.array(array.ravel()))
    return make_lists(tokens, lengths)
