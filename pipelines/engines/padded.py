"""Chunks one below the other, filled up to one width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

# Places for each token.
_MOST = 4

Columns = dict[str, np.ndarray]


def is_mostly_padding(lengths: np.ndarray) -> bool:
    """Of chunks that were packed, whose budget counts no padding: beside one long chunk a thousand
    short ones would be as long."""
    return bool(len(lengths) * lengths.max() > _MOST * lengths.sum())


def split_in_half(columns: Columns, lengths: np.ndarray) -> Iterator[tuple[Columns, np.ndarray]]:
    """The first half of the chunks, and the others."""
    half = len(lengths) // 2
    at = int(lengths[:half].sum())
    yield {name: values[:at] for name, values in columns.items()}, lengths[:half]
    yield {name: values[at:] for name, values in columns.items()}, lengths[half:]


def pad(
    columns: Columns, lengths: np.ndarray, tokenizer: Any, width: int | None = None
) -> tuple[Columns, np.ndarray]:
    """A model's inputs, and which of their places are tokens, each of shape (chunks, width).

    columns: of chunks one after the other, shape (tokens,); lengths: how long each is.
    width: None for the longest chunk's.
    """
    here = np.arange(width or lengths.max(initial=0)) < lengths[:, None]
    inputs = {}
    for name, values in columns.items():
        fill = tokenizer.pad_token_id if name == "input_ids" else 0
        inputs[name] = np.full(here.shape, fill or 0, dtype=np.int64)
        inputs[name][here] = values
    if "attention_mask" in tokenizer.model_input_names:
        inputs["attention_mask"] = here.astype(np.int64)
    return inputs, here
