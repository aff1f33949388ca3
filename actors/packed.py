"""Sequences of any length in one forward pass without padding: one stream of tokens.

transformers lets a model's attention be exchanged (`AttentionInterface`). Ours keeps the
sequences of the stream apart; everything else in an encoder works token by token.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .on_host import on_device

_NAME = "pipemill_packed"
_stream = threading.local()  # .lengths, .asked: of this thread's forward pass


@dataclass
class Asked:
    """A layer that goes on with some tokens of the stream only.

    places: of these, in order; keys, values: of all tokens, shape (1, tokens, width of all heads),
    once the layer has made them.
    """

    places: np.ndarray
    keys: Any = None
    values: Any = None


@contextmanager
def stream_of(lengths: np.ndarray, asked: Asked | None = None) -> Iterator[None]:
    """Within it a row of tokens is sequences of these lengths, one after the other."""
    _stream.lengths, _stream.asked = lengths, asked
    try:
        yield
    finally:
        del _stream.lengths, _stream.asked


def exchange_attention(model: Any) -> str:
    """Gives the model an attention that packs; returns the name of the one it had.

    Raises NotImplementedError for a model whose code has an attention of its own.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    if not model._can_set_attn_implementation():
        raise NotImplementedError(f"{type(model).__name__} has an attention of its own")
    AttentionInterface.register(_NAME, _attention)
    # Who may see whom follows from the lengths: no mask is made.
    AttentionMaskInterface.register(_NAME, lambda *args, **kwargs: None)
    usual = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    return usual


def _attention(
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
    """query, key, value: shape (1, heads, tokens, width). Returns (1, tokens, heads, width)."""
    if not hasattr(_stream, "lengths"):
        raise RuntimeError("a model with exchanged attention was called outside stream_of()")
    for name in ("position_bias", "softcap", "s_aux"):
        if others.get(name) is not None:
            raise NotImplementedError(f"attention with {name} is not packed")
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    places, streams = None, [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    if (asked := _stream.asked) is not None and asked.keys is not None:
        if causal or sliding_window is not None:
            raise NotImplementedError("such attention needs every token's place")
        places, heads = asked.places, key.shape[1]
        streams[1:] = [t[0].unflatten(-1, (heads, -1)) for t in (asked.keys, asked.values)]
    if query.device.type == "cuda" and query.element_size() == 2:
        return _varlen(streams, places, scaling, causal, sliding_window)[None], None
    if places is not None:
        return _of_some(streams, places, scaling)[None], None
    return _by_length(streams, scaling, causal, sliding_window)[None], None


def _by_length(streams: list[Any], scale: float | None, causal: bool, window: int | None) -> Any:
    """One dense attention for each run of sequences of equal length."""
    import torch

    out = torch.empty_like(streams[0], memory_format=torch.contiguous_format)
    gqa = streams[0].shape[1] != streams[1].shape[1]
    for start, count, length in runs(_stream.lengths):
        end = start + count * length
        parts = [s[start:end].unflatten(0, (count, length)).transpose(1, 2) for s in streams]
        done = torch.nn.functional.scaled_dot_product_attention(
            *parts,
            attn_mask=_near(length, window, causal, out.device),
            is_causal=causal and window is None,
            scale=scale,
            enable_gqa=gqa,
        )
        out[start:end] = done.transpose(1, 2).flatten(0, 1)
    return out


def _of_some(streams: list[Any], places: np.ndarray, scale: float | None) -> Any:
    """The same where the queries are those of the tokens at these places only."""
    import torch

    query, *others = streams
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    gqa = query.shape[1] != others[0].shape[1]
    for start, count, length in runs(_stream.lengths):
        end = start + count * length
        here = slice(*np.searchsorted(places, (start, end)))
        if here.start == here.stop:
            continue
        whose = on_device((places[here] - start) // length, query.device)
        keys, values = (
            stream[start:end].unflatten(0, (count, length))[whose].transpose(1, 2)
            for stream in others
        )
        done = torch.nn.functional.scaled_dot_product_attention(
            query[here, :, None], keys, values, scale=scale, enable_gqa=gqa
        )
        out[here] = done[:, :, 0]
    return out


def _varlen(
    streams: list[Any],
    places: np.ndarray | None,
    scale: float | None,
    causal: bool,
    window: int | None,
) -> Any:
    """All sequences in one call, on a GPU. Untried: no GPU was at hand."""
    from torch.nn.attention.varlen import varlen_attn

    ends = np.concatenate([[0], np.cumsum(_stream.lengths)]).astype(np.int32)
    # Of the queries: as many in each sequence as tokens of it are asked for.
    asking = ends if places is None else np.searchsorted(places, ends).astype(np.int32)
    side = -1 if window is None else window - 1
    return varlen_attn(
        *(stream.contiguous() for stream in streams),
        on_device(asking, streams[0].device),
        on_device(ends, streams[0].device),
        int(np.diff(asking).max()),
        int(np.diff(ends).max()),
        scale=scale,
        window_size=(side, 0 if causal else side),
        enable_gqa=streams[0].shape[1] != streams[1].shape[1],
    )


def _near(length: int, window: int | None, causal: bool, device: Any) -> Any:
    """The mask of attention to the nearest tokens only; None where that is all of them."""
    import torch

    if window is None or (length <= window and not causal):
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return ((distance >= 0) if causal else (distance > -window)) & (distance < window)


def runs(lengths: np.ndarray) -> list[tuple[int, int, int]]:
    """(first token, sequences, length) of each run of sequences of equal length."""
    cuts = np.flatnonzero(np.diff(lengths)) + 1
    firsts, counts = np.append(0, cuts), np.diff(np.append(np.append(0, cuts), len(lengths)))
    starts = np.append(0, np.cumsum(lengths))[firsts]
    return [
        (int(start), int(count), int(lengths[first]))
        for start, count, first in zip(starts, counts, firsts, strict=True)
    ]
