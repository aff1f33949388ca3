"""Make chunks one stream of tokens, and give a model's head the tokens that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from pipemill.actors.device_transfer import to_device

from .onednn.linears import STEP

if TYPE_CHECKING:
    from .hidden_states import LastLayer
    from .packed_attention import SelectedTokens

# Inputs of a model that have a value for each token.
_TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")


def packed_inputs(
    columns: dict[str, np.ndarray], lengths: np.ndarray, padding_index: int | None, rounds: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the model's inputs, each of shape (1, tokens), and the lengths of the chunks in them.

    Args:
        columns: of chunks one after the other, shape (tokens,).
        lengths: the tokens of each chunk.
        padding_index: see `list_positions`.
        rounds: whether the stream is made longer, so that there are few different lengths.
    """
    if rounds:
        columns, lengths = _round_up(columns, lengths)
    columns = {
        **columns,
        "position_ids": list_positions(columns["input_ids"], lengths, padding_index),
    }
    return {name: values[None] for name, values in columns.items()}, lengths


def _round_up(
    columns: dict[str, np.ndarray], lengths: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Add a few tokens to the stream that nobody reads: up to a multiple of STEP."""
    missing, longest = int(-lengths.sum() % STEP), int(lengths.max())
    if not missing:
        return columns, lengths
    # No added sequence is longer than the longest chunk, which the model takes.
    more = [longest] * (missing // longest) + [missing % longest] * bool(missing % longest)
    filled = {
        name: np.append(values, np.repeat(values[:1], missing)) for name, values in columns.items()
    }
    return filled, np.append(lengths, more)


def list_positions(ids: np.ndarray, lengths: np.ndarray, padding_index: int | None) -> np.ndarray:
    """Return the position of each token in its sequence, shape (tokens,).

    padding_index: RoBERTa and models like it count from behind the padding's position, and do not
        count the padding's token; None for models that count from 0.
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
    """Give the model's head only the tokens at these places of the stream inside the block.

    A classifier or a pooler looks at the first token of what it gets. In a stream that would be
    the first chunk's only, so it gets the first token of each chunk.

    Args:
        model: the model.
        places: of the tokens that are read, shape (tokens read,).
        first: whether each of them is the first of a chunk.
        last: the layer that leaves out the others, where the model has one.

    Yields:
        What the layer's attention must know, or None.
    """
    base = model.base_model

    def gather(module: Any, args: Any, output: Any) -> Any:
        states = output[0][0, index]
        # Several rows of one token, or one row of several.
        return _replace_states(output, states[:, None] if first else states[None])

    # A pooler looks at the tokens before the base model returns them.
    pools = getattr(base, "pooler", None) is not None
    read = getattr(base, "encoder", base) if pools else base
    with ExitStack() as hooks:
        selected = hooks.enter_context(last.select(places)) if last and len(places) else None
        index = to_device(places if selected is None else np.arange(len(places)), model.device)
        hooks.callback(read.register_forward_hook(gather).remove)
        yield selected


@contextmanager
def unpack_hidden_states(model: Any, inputs: dict[str, Any], here: np.ndarray) -> Iterator[None]:
    """Have a model that is called with padded chunks compute a stream inside the block.

    Its body gets the stream of the chunks' tokens. Its head, which looks at all tokens of a chunk,
    gets their hidden states, padded again.

    Args:
        model: the model.
        inputs: the stream, as tensors.
        here: which places of the padded chunks are tokens, shape (chunks, width).
    """
    body = model
    while body.base_model is not body:  # DPR's is a model in a model in a model
        body = body.base_model
    places = to_device(np.flatnonzero(here), model.device)

    def before(module: Any, args: Any, kwargs: Any) -> Any:
        others = {name: v for name, v in kwargs.items() if name not in _TOKEN_INPUTS}
        return (), {**others, **inputs}

    def after(module: Any, args: Any, output: Any) -> Any:
        states = output[0][0, : len(places)]
        filled = states.new_zeros((here.size, states.shape[-1]))
        filled[places] = states
        return _replace_states(output, filled.unflatten(0, here.shape))

    hooks = [
        body.register_forward_pre_hook(before, with_kwargs=True),
        body.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _replace_states(output: Any, states: Any) -> Any:
    """Return a base model's output with other hidden states."""
    output[0 if isinstance(output, list) else "last_hidden_state"] = states
    return output
