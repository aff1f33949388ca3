"""Chunks one below the other, filled up to one width."""

from __future__ import annotations

from typing import Any

import numpy as np


def filled(
    columns: dict[str, np.ndarray], lengths: np.ndarray, tokenizer: Any, width: int | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
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
