"""Chunks one after the other as one stream of tokens: how long it is, who is where, who is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from pipemill.actors.device_transfer import to_device

from .hidden_states import LastLayer
from .onednn_linear import STEP
from .varlen_attention import SelectedTokens

# What a model is told of each token of its chunks.
_OF_CHUNKS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")


def packed_inputs(
    columns: dict[str, np.ndarray], lengths: np.ndarray, padding_index: int | None, rounds: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The model's inputs, each of shape (1, tokens), and the lengths of what is in them.

    rounds: whether there are to be few lengths of it.
    """
    if rounds:
        columns, lengths = _rounded_up(columns, lengths)
    columns = {**columns, "position_ids": positions(columns["input_ids"], lengths, padding_index)}
    return {name: values[None] for name, values in columns.items()}, lengths


def _rounded_up(
    columns: dict[str, np.ndarray], lengths: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The stream with a few tokens more that nobody reads, so that there are few lengths of it."""
    missing, longest = int(-lengths.sum() % STEP), int(lengths.max())
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
def select_tokens(
    model: Any, places: np.ndarray, first: bool, last: LastLayer | None
) -> Iterator[SelectedTokens | None]:
    """Within it the model's head sees the tokens at these places of the stream only.

    A classifier's, or a pooler, looks at the first token of what it is given, and of a stream
    would see only the very first: it is given each chunk's own.

    first: whether each is the first of a chunk. last: the layer that leaves the others out, where
    the model has one. Yields what its attention must know.
    """
    base = model.base_model

    def gathered(module: Any, args: Any, output: Any) -> Any:
        states = output[0][0, index]
        # Several rows of one token, or one row of several.
        return _replaced(output, states[:, None] if first else states[None])

    # A pooler looks at the tokens before the base model returns them.
    pools = getattr(base, "pooler", None) is not None
    read = getattr(base, "encoder", base) if pools else base
    with ExitStack() as hooks:
        asked = hooks.enter_context(last.narrowed(places)) if last and len(places) else None
        index = to_device(places if asked is None else np.arange(len(places)), model.device)
        hooks.callback(read.register_forward_hook(gathered).remove)
        yield asked


@contextmanager
def unpack_hidden_states(model: Any, inputs: dict[str, Any], here: np.ndarray) -> Iterator[None]:
    """Within it the model is called with padded chunks, but its body gets the stream of their
    tokens; its head, which looks at all of a chunk's, gets what became of them, padded again.

    inputs: the stream, as tensors. here: which places of the padded chunks are tokens, shape
    (chunks, width).
    """
    body = model
    while body.base_model is not body:  # DPR's is a model in a model in a model
        body = body.base_model
    places = to_device(np.flatnonzero(here), model.device)

    def before(module: Any, args: Any, kwargs: Any) -> Any:
        others = {name: v for name, v in kwargs.items() if name not in _OF_CHUNKS}
        return (), {**others, **inputs}

    def after(module: Any, args: Any, output: Any) -> Any:
        states = output[0][0, : len(places)]
        filled = states.new_zeros((here.size, states.shape[-1]))
        filled[places] = states
        return _replaced(output, filled.unflatten(0, here.shape))

    hooks = [
        body.register_forward_pre_hook(before, with_kwargs=True),
        body.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _replaced(output: Any, states: Any) -> Any:
    """A base model's output with other hidden states."""
    output[0 if isinstance(output, list) else "last_hidden_state"] = states
    return output
