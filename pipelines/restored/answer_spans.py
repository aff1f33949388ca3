"""From the logits of one window to the spans of tokens that answer best."""

from __future__ import annotations

import numpy as np

# What a token outside the context gets in place of its logit: no probability is left of it.
_NEVER = np.float32(-10_000)


def compute_probabilities(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Softmax of float32 `logits` [tokens] over the tokens that are `allowed`."""
    kept = np.where(allowed, logits, _NEVER)
    raised = np.exp(kept - kept.max())
    return raised / raised.sum()


def find_best_spans(
    start: np.ndarray, end: np.ndarray, allowed: np.ndarray, count: int, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `count` most probable spans of at most `longest` tokens, best first.

    start, end: the probability of each token to be the first, the last of the answer.
    Returns the first tokens, the last tokens (included) and the probabilities. There are fewer
    than `count` where spans at tokens that are not `allowed` were among the best.
    """
    firsts, lasts, scores = _find_candidates(start, end, count, longest)
    inside = allowed[firsts] & allowed[lasts]
    return firsts[inside], lasts[inside], scores[inside]


def _find_candidates(
    start: np.ndarray, end: np.ndarray, count: int, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens, width = len(start), min(longest, len(start))
    # Row i holds the spans that begin at token i, by their length: a band of the square of all
    # spans, at the usual settings a twenty-fifth of it.
    padded = np.concatenate([end, np.zeros(width - 1, end.dtype)])
    band = start[:, None] * np.lib.stride_tricks.sliding_window_view(padded, width)
    if np.count_nonzero(band) >= count:
        order = _find_largest(band.ravel(), count)
        firsts, lengths = np.divmod(order, width)
        return firsts, firsts + lengths, band.ravel()[order]
    # Fewer possible spans than asked for. The rest have probability 0, and which of them come
    # along is left to numpy's selection over the square of all spans, impossible ones included:
    # so it was in transformers 4.57, whose answers then end with some of score 0.
    square = np.triu(start[:, None] * end[None, :])
    flat = np.tril(square, longest - 1).ravel()
    order = _find_largest(flat, count)
    firsts, lasts = np.divmod(order, tokens)
    return firsts, lasts, flat[order]


def _find_largest(values: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` largest values, the largest first."""
    if count == 1:
        return np.array([values.argmax()])
    if count >= len(values):
        return np.argsort(-values)
    chosen = np.argpartition(-values, count)[:count]
    return chosen[np.argsort(-values[chosen])]
