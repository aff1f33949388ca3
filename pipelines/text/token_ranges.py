"""Ranges of a stream of tokens, cut and put together without a loop over texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """The windows of several texts whose tokens are one stream.

    Attributes:
        starts: where each window begins in the stream, shape (windows,).
        lengths: tokens of each window, shape (windows,).
        counts: windows of each text, shape (texts,).
    """

    starts: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray


def concatenate_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the numbers of all ranges, one range after the other, shape (sum of lengths,)."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def cut_windows(tokens: np.ndarray, room: int | None, step: int) -> Windows:
    """Cut texts into windows.

    Args:
        tokens: of each text, shape (texts,).
        room: the most tokens of a window; None for one window per text.
        step: tokens between the starts of neighbouring windows.
    """
    begins = np.cumsum(tokens) - tokens
    if room is None or tokens.max(initial=0) <= room:
        return Windows(begins, tokens, np.ones_like(tokens))
    counts = 1 + -(-np.maximum(tokens - room, 0) // step)
    skipped = step * concatenate_ranges(np.zeros_like(counts), counts)
    left = np.repeat(tokens, counts) - skipped
    return Windows(np.repeat(begins, counts) + skipped, np.minimum(left, room), counts)
