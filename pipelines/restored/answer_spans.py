"""Find the spans of tokens that answer best, from the logits of one window."""

from __future__ import annotations

import numpy as np

# The logit of a token outside the context: its probability becomes 0.
_NEVER = np.float32(-10_000)


def compute_probabilities(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Compute the softmax over the tokens that are allowed.

    Args:
        logits: float32, shape (tokens,).
        allowed: bool, shape (tokens,).
    """
    masked = np.where(allowed, logits, _NEVER)
    exponentials = np.exp(masked - masked.max())
    return exponentials / exponentials.sum()


def find_best_spans(
    start: np.ndarray, end: np.ndarray, allowed: np.ndarray, count: int, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the most probable spans, best first.

    Args:
        start: the probability of each token to be the answer's first, shape (tokens,).
        end: the probability of each token to be the answer's last, shape (tokens,).
        allowed: whether a span may begin or end at each token, shape (tokens,).
        count: how many spans to find.
        longest: the most tokens of a span.

    Returns:
        The first tokens, the last tokens (inclusive) and the probabilities, each of shape
        (spans,). There are fewer than `count` if spans at tokens that are not allowed were among
        the best.
    """
    firsts, lasts, scores = _find_candidates(start, end, count, longest)
    inside = allowed[firsts] & allowed[lasts]
    return firsts[inside], lasts[inside], scores[inside]


def _find_candidates(
    start: np.ndarray, end: np.ndarray, count: int, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens, width = len(start), min(longest, len(start))
    # Row i holds the spans that begin at token i, by their length: a band of the square of all
    # spans, which at the default settings is 1/25 of the square.
    padded = np.concatenate([end, np.zeros(width - 1, end.dtype)])
    band = start[:, None] * np.lib.stride_tricks.sliding_window_view(padded, width)
    if np.count_nonzero(band) >= count:
        order = _find_largest(band.ravel(), count)
        firsts, lengths = np.divmod(order, width)
        return firsts, firsts + lengths, band.ravel()[order]
    # There are fewer possible spans than `count`. The others have probability 0, and numpy selects
    # some of them from the square of all spans, impossible ones included. transformers 4.57 did
    # the same: its answers then end with some of score 0.
    square = np.triu(start[:, None] * end[None, :])
    flat = np.tril(square, longest - 1).ravel()
    order = _find_largest(flat, count)
    firsts, lasts = np.divmod(order, tokens)
    return firsts, lasts, flat[order]


def _find_largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` largest values, the largest first."""
    if count == 1:
        return np.array([values.argmax()])
    if count >= len(values):
        return np.argsort(-values)
    chosen = np.argpartition(-values, count)[:count]
    return chosen[np.argsort(-values[chosen])]
