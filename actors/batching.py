"""Which chunks share a forward pass."""

from __future__ import annotations

import numpy as np


def micro_batches(
    sizes: np.ndarray, budget: int, *, equal_sizes: bool = False
) -> list[np.ndarray]:
    """Cuts chunks into micro-batches whose padded size stays within a budget.

    Chunks are sorted by size, longest first, so a micro-batch is as long as its first chunk and
    the largest one comes first: what does not fit in memory shows at once. A chunk longer than
    the budget runs alone.

    sizes: tokens of each chunk, shape (chunks,).
    budget: the most padded tokens in a micro-batch, number of chunks times longest chunk.
    equal_sizes: only chunks of one size share a micro-batch, so nothing is padded.
    Returns indices into `sizes`; together they hold every chunk once.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, not {budget}")
    order = np.argsort(-sizes, kind="stable")
    descending = sizes[order]
    batches = []
    start = 0
    while start < len(order):
        longest = max(int(descending[start]), 1)
        stop = start + max(budget // longest, 1)
        if equal_sizes:
            stop = min(stop, int(np.searchsorted(-descending, -descending[start], side="right")))
        batches.append(order[start:stop])
        start = stop
    return batches


def padded_size(sizes: np.ndarray, batches: list[np.ndarray]) -> int:
    """Tokens that the forward passes of these micro-batches see, padding included."""
    return int(sum(len(batch) * sizes[batch].max(initial=0) for batch in batches))
