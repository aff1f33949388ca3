"""Chunks one after the other as one stream of tokens: how long it is, who is where, who is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# Streams are of a multiple of so many tokens where each new length costs something.
_STEP = 16


def rounded_up(
    columns: dict[str, np.ndarray], lengths: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The stream with a few tokens more that nobody reads, so that there are few lengths of it."""
    missing, longest = int(-lengths.sum() % _STEP), int(lengths.max())
    if not missing:
        return columns, lengths
    # None of them is longer than a sequence that the model takes.
    more = [longest] * (missing // longest) + [missing % longest] * bool(missing % longest)
    filled = {
        name: np.append(values, np.repeat(values[:1], missing)) for name, values in columns.items()
    }
    return filled, np.append(lengths, more)


def positions(ids: np.ndarray, lengths: np.ndarray, padding_index: int | None) -> np.ndarray:
    """Of each token in its sequence, shape (tokens,).

    RoBERTa and its kin count from behind the padding's, and do not count the padding's token.
    """
    starts = np.cumsum(lengths) - lengths
    if padding_index is None:
        return np.arange(len(ids)) - np.repeat(starts, lengths)
    counts = ids != padding_index
    before = np.concatenate([[0], np.cumsum(counts)])
    within = before[1:] - np.repeat(before[starts], lengths)
    return np.where(counts, within, 0) + padding_index


@contextmanager
def read_at(model: Any, index: Any, first: bool) -> Iterator[None]:
    """Within it the model's head sees these tokens of the stream only.

    A classifier's, or a pooler, looks at the first token of what it is given, and of a stream
    would see only the very first: it is given each chunk's own.

    index: a tensor of places in the stream. first: whether each is the first of a chunk.
    """
    base = model.base_model

    def gathered(states: Any) -> Any:
        states = states[0, index]
        # Several rows of one token, or one row of several.
        return states[:, None] if first else states[None]

    def after(module: Any, args: Any, output: Any) -> Any:
        output[0 if isinstance(output, list) else "last_hidden_state"] = gathered(output[0])
        return output

    hooks = [base.register_forward_hook(after)]
    if (pooler := getattr(base, "pooler", None)) is not None:
        hooks.append(
            pooler.register_forward_pre_hook(lambda m, args: (gathered(args[0]), *args[1:]))
        )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
