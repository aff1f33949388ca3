"""Choose which chunks share a forward pass."""

from __future__ import annotations

import numpy as np

# The cost of starting a forward pass, as a share of the budget: on a CPU as much as some 30 tokens,
# on a GPU as some hundreds.
_START = 1 / 64


def cut_micro_batches(
    sizes: np.ndarray, budget: int, groups: np.ndarray | None = None, *, padded: bool = True
) -> list[np.ndarray]:
    """Cut chunks into the micro-batches that cost least, padded to their longest chunk.

    Chunks are sorted by size, longest first: what does not fit in memory shows at once. Each
    micro-batch costs its padded tokens and a small constant; dynamic programming over the sorted
    chunks finds the cheapest cuts. A chunk longer than the budget runs alone.

    Args:
        sizes: tokens of each chunk, shape (chunks,).
        budget: the most tokens in a micro-batch with padding: chunks times longest chunk.
        groups: only chunks of the same group share a micro-batch; shape (chunks,), or None if all
            may.
        padded: False if a micro-batch costs its tokens, however long each chunk is.

    Returns:
        Indices into `sizes` for each micro-batch. Together they hold every chunk once.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, not {budget}")
    if not padded:
        return _cut_packed(sizes, budget)
    if groups is None:
        return _cut_padded(sizes, budget)
    _, group = np.unique(groups, return_inverse=True)
    by_group = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group))
    members = np.split(by_group, ends[:-1]) if len(ends) else []
    batches = [chunks[cut] for chunks in members for cut in _cut_padded(sizes[chunks], budget)]
    return sorted(batches, key=lambda batch: -sizes[batch].max())


def _cut_packed(sizes: np.ndarray, budget: int) -> list[np.ndarray]:
    """Cut chunks that are not padded. They are sorted, too: attention likes equal lengths."""
    order = np.argsort(-sizes, kind="stable")
    ends = np.cumsum(np.maximum(sizes[order], 1))
    batches, at = [], 0
    while at < len(order):
        before = ends[at - 1] if at else 0
        stop = max(int(np.searchsorted(ends, before + budget, side="right")), at + 1)
        batches.append(order[at:stop])
        at = stop
    return batches


def _cut_padded(sizes: np.ndarray, budget: int) -> list[np.ndarray]:
    """Cut chunks that may all share a micro-batch."""
    order = np.argsort(-sizes, kind="stable")
    longest = np.maximum(sizes[order], 1)
    most = np.minimum(np.maximum(budget // longest, 1), len(order) - np.arange(len(order)))
    start_cost = budget * _START
    # cheapest[i]: the cost of all micro-batches from the i-th chunk on.
    # counts[i]: how many chunks the first of them holds.
    cheapest = np.zeros(len(order) + 1)
    counts = np.zeros(len(order), dtype=np.int64)
    choices = np.arange(1, int(most.max(initial=0)) + 1)
    for i in range(len(order) - 1, -1, -1):
        costs = choices[: most[i]] * longest[i] + cheapest[i + 1 : i + 1 + most[i]]
        counts[i] = np.argmin(costs) + 1
        cheapest[i] = costs[counts[i] - 1] + start_cost
    batches, at = [], 0
    while at < len(order):
        batches.append(order[at : at + counts[at]])
        at += counts[at]
    return batches


def count_padded_tokens(sizes: np.ndarray, batches: list[np.ndarray]) -> int:
    """Return the tokens of these micro-batches, padding included."""
    return int(sum(len(batch) * sizes[batch].max(initial=0) for batch in batches))
