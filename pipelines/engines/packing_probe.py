"""Sequences on which a model shows whether it gives the same answers without padding."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ..text import model_limits

# Of one and of several lengths, one beyond any window of attention.
_LENGTHS = (160, 31, 31, 9, 3, 1)
_BEYOND_A_WINDOW = 32
_WIDEST_WINDOW = 2048  # a probe of more would take too long


def make_probe(pipeline: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Random tokens that mean nothing: the model's inputs, of shape (tokens,), and the lengths.

    Raises NotImplementedError for a model whose attention has too wide a window.
    """
    tokenizer, model = pipeline.tokenizer, pipeline.model
    config, rng = model.config.get_text_config(), np.random.default_rng(0)
    names = ("sliding_window", "attention_chunk_size")
    window = max(getattr(config, name, None) or 0 for name in names)
    if window > _WIDEST_WINDOW:
        raise NotImplementedError(f"a window of {window} tokens is not tried")
    lengths = np.array(_LENGTHS)
    lengths[0] = max(lengths[0], window + _BEYOND_A_WINDOW)
    lengths = np.minimum(lengths, model_limits.count_positions(model) or lengths[0])
    # A tokenizer may know more tokens than the model: on a GPU one such ends the process.
    known = min(len(tokenizer), model.get_input_embeddings().num_embeddings)
    ids = rng.integers(known, size=int(lengths.sum()))
    # To some models the tokens of masks or padding are more than any other token.
    special = [i for i in tokenizer.all_special_ids if i < known][: int(lengths[0]) // 4]
    ids[1 : 1 + len(special)] = special
    columns = {"input_ids": ids}
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        types = getattr(config, "type_vocab_size", None) or 1
        columns["token_type_ids"] = rng.integers(min(types, 2), size=len(ids))
    return columns, lengths
