"""Compute the attention of a stream of tokens: sequences of any length without padding.

transformers lets a model's attention be exchanged (`AttentionInterface`). This one keeps the
sequences of the stream apart; everything else in an encoder works token by token.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from pipemill.actors.device_transfer import to_device

from .gpu_attention import Kernel, Sequences

_NAME = "pipemill_packed"
_stream = threading.local()  # .lengths, .selected, .kernel, .starts of a thread's forward pass


@dataclass
class SelectedTokens:
    """The tokens of the stream that a layer computes, and what it needs of the others.

    Attributes:
        places: of the tokens that are computed, in order.
        keys: of all tokens, shape (1, tokens, width of all heads), once the layer has made them.
        values: like the keys.
    """

    places: np.ndarray
    keys: Any = None
    values: Any = None


@contextmanager
def packed_lengths(
    lengths: np.ndarray, selected: SelectedTokens | None = None, kernel: Kernel | None = None
) -> Iterator[None]:
    """Compute a row of tokens as sequences of these lengths, one after the other, in the block.

    Args:
        lengths: in tokens, shape (sequences,).
        selected: the tokens that the last layer computes; None for all.
        kernel: what computes the attention of all sequences at once; None for one dense attention
            for each length.
    """
    _stream.lengths, _stream.selected, _stream.kernel, _stream.starts = (
        lengths,
        selected,
        kernel,
        {},
    )
    try:
        yield
    finally:
        del _stream.lengths, _stream.selected, _stream.kernel, _stream.starts


def install_packed_attention(model: Any) -> str:
    """Give the model an attention that packs, and return the name of the one it had.

    Raises:
        NotImplementedError: the model's code does not let its attention be exchanged.
    """
    from transformers import AttentionInterface

    if not model._can_set_attn_implementation():
        raise NotImplementedError(f"{type(model).__name__} does not exchange its attention")
    AttentionInterface.register(_NAME, _compute_attention)
    # Who may see whom follows from the lengths. For a name that `AttentionMaskInterface` lacks no
    # mask is made, nor are positions looked at, for which the host would wait.
    usual = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    return usual


def _compute_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Any, None]:
    """Return what the tokens see, of shape (1, tokens, heads, width).

    query, key, value: shape (1, heads, tokens, width).
    """
    if not hasattr(_stream, "lengths"):
        raise RuntimeError("a packed model was called outside packed_lengths()")
    for name in ("position_bias", "softcap", "s_aux"):
        if others.get(name) is not None:
            raise NotImplementedError(f"attention with {name} is not packed")
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    places, streams = None, [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    if (selected := _stream.selected) is not None and selected.keys is not None:
        if causal or sliding_window is not None:
            raise NotImplementedError("such attention needs every token's place")
        places, heads = selected.places, key.shape[1]
        streams[1:] = [t[0].unflatten(-1, (heads, -1)) for t in (selected.keys, selected.values)]
    if _stream.kernel is not None:
        sequences = _make_sequences(streams, places, scaling, causal, sliding_window)
        return _stream.kernel(sequences)[None], None
    if places is not None:
        return _select_queries(streams, places, scaling)[None], None
    return _attend_by_length(streams, scaling, causal, sliding_window)[None], None


def _attend_by_length(
    streams: list[Any], scale: float | None, causal: bool, window: int | None
) -> Any:
    """Compute one dense attention for each run of sequences of equal length."""
    import torch

    out = torch.empty_like(streams[0], memory_format=torch.contiguous_format)
    gqa = streams[0].shape[1] != streams[1].shape[1]
    for start, count, length in find_runs(_stream.lengths):
        end = start + count * length
        parts = [s[start:end].unflatten(0, (count, length)).transpose(1, 2) for s in streams]
        done = torch.nn.functional.scaled_dot_product_attention(
            *parts,
            attn_mask=_make_window_mask(length, window, causal, out.device),
            is_causal=causal and window is None,
            scale=scale,
            enable_gqa=gqa,
        )
        out[start:end] = done.transpose(1, 2).flatten(0, 1)
    return out


def _select_queries(streams: list[Any], places: np.ndarray, scale: float | None) -> Any:
    """Do the same where the queries are those of the tokens at these places only."""
    import torch

    query, *others = streams
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    # The last one may be repeated. Each would have a copy of its sequence's keys and values.
    several, places = len(places), np.unique(places)
    gqa = query.shape[1] != others[0].shape[1]
    for start, count, length in find_runs(_stream.lengths):
        end = start + count * length
        here = slice(*np.searchsorted(places, (start, end)))
        if here.start == here.stop:
            continue
        whose = to_device((places[here] - start) // length, query.device)
        keys, values = (
            stream[start:end].unflatten(0, (count, length))[whose].transpose(1, 2)
            for stream in others
        )
        done = torch.nn.functional.scaled_dot_product_attention(
            query[here, :, None], keys, values, scale=scale, enable_gqa=gqa
        )
        out[here] = done[:, :, 0]
    if several > len(places):
        out[len(places) :] = out[len(places) - 1]
    return out


def _make_sequences(
    streams: list[Any],
    places: np.ndarray | None,
    scale: float | None,
    causal: bool,
    window: int | None,
) -> Sequences:
    query, key, value = (stream.contiguous() for stream in streams)
    key_starts, longest_key = _find_sequence_starts(None, key.device)
    query_starts, longest_query = _find_sequence_starts(places, key.device)
    return Sequences(
        query=query,
        key=key,
        value=value,
        query_starts=query_starts,
        key_starts=key_starts,
        longest_query=longest_query,
        longest_key=longest_key,
        scale=scale,
        causal=causal,
        window=window,
    )


def _find_sequence_starts(places: np.ndarray | None, device: Any) -> tuple[Any, int]:
    """Return where the sequences start, on the device, and the longest length.

    It is made once for all layers. places: only the tokens at these places are counted.
    """
    known: dict[bool, tuple[Any, int]] = _stream.starts
    all_tokens = places is None
    if all_tokens not in known:
        starts = np.append(0, np.cumsum(_stream.lengths))
        if places is not None:
            starts = np.searchsorted(places, starts)
        longest = int(np.diff(starts).max())
        known[all_tokens] = to_device(starts.astype(np.int32), device), longest
    return known[all_tokens]


def _make_window_mask(length: int, window: int | None, causal: bool, device: Any) -> Any:
    """Return the mask of attention to the nearest tokens only; None where those are all."""
    import torch

    if window is None or (length <= window and not causal):
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return ((distance >= 0) if causal else (distance > -window)) & (distance < window)


def find_runs(lengths: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (first token, sequences, length) of each run of sequences of equal length."""
    cuts = np.flatnonzero(np.diff(lengths)) + 1
    firsts, counts = np.append(0, cuts), np.diff(np.append(np.append(0, cuts), len(lengths)))
    starts = np.append(0, np.cumsum(lengths))[firsts]
    return [
        (int(start), int(count), int(lengths[first]))
        for start, count, first in zip(starts, counts, firsts, strict=True)
    ]
