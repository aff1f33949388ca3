"""Attention kernels of a GPU that take sequences of any length in one call.

Which of them exist depends on the version of torch and on what is installed. Whether one computes
what the model needs is found out by running it: see `packing_probe`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from math import isclose
from typing import Any, TypeAlias


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Queries, keys and values of sequences, one after the other.

    query, key, value: shape (tokens, heads, width); the keys may have fewer heads.
    query_starts, key_starts: where each sequence starts, and the end; int32, (sequences + 1,).
    longest_query, longest_key: tokens of the longest sequence.
    scale: what the products are multiplied by; None for 1 / sqrt(width).
    window: tokens that a token sees to its left, itself included (and to its right, where the
        attention is not causal); None for all.
    """

    query: Any
    key: Any
    value: Any
    query_starts: Any
    key_starts: Any
    longest_query: int
    longest_key: int
    scale: float | None
    causal: bool
    window: int | None

    def sides(self) -> tuple[int, int]:
        """Return how many tokens are seen to the left and to the right; -1 for all."""
        side = -1 if self.window is None else self.window - 1
        return side, 0 if self.causal else side

    def has_usual_scale(self) -> bool:
        """Tell whether the products are multiplied by 1 / sqrt(width)."""
        return self.scale is None or isclose(self.scale, self.query.shape[-1] ** -0.5)

    def all_heads(self, states: Any) -> Any:
        """Return keys or values with as many heads as the queries have."""
        groups = self.query.shape[1] // states.shape[1]
        return states if groups == 1 else states.repeat_interleave(groups, dim=1)


# Returns shape (tokens, heads, width). Raises NotImplementedError for what it cannot compute.
Kernel: TypeAlias = Callable[[Sequences], Any]


def torch_varlen(sequences: Sequences) -> Any:
    """Run `torch.nn.attention.varlen`, which torch has from 2.10 on."""
    function = import_module("torch.nn.attention.varlen").varlen_attn
    names = _list_parameters(function)
    options: dict[str, Any] = {}
    if "scale" in names:
        options["scale"] = sequences.scale
    elif not sequences.has_usual_scale():
        raise NotImplementedError("this version of torch has no scale in varlen_attn")
    if "window_size" in names:
        options["window_size"] = sequences.sides()
    elif sequences.window is not None:
        raise NotImplementedError("this version of torch has no window in varlen_attn")
    else:
        options["is_causal"] = sequences.causal
    key, value = sequences.key, sequences.value
    if "enable_gqa" in names:
        options["enable_gqa"] = sequences.query.shape[1] != key.shape[1]
    else:
        key, value = sequences.all_heads(key), sequences.all_heads(value)
    return function(
        sequences.query,
        key,
        value,
        sequences.query_starts,
        sequences.key_starts,
        sequences.longest_query,
        sequences.longest_key,
        **options,
    )


def flash_attention(sequences: Sequences) -> Any:
    """Run flash-attn, as a package or as a kernel of the Hub."""
    return _import_flash_attention()(
        sequences.query,
        sequences.key,
        sequences.value,
        cu_seqlens_q=sequences.query_starts,
        cu_seqlens_k=sequences.key_starts,
        max_seqlen_q=sequences.longest_query,
        max_seqlen_k=sequences.longest_key,
        softmax_scale=sequences.scale,
        causal=sequences.causal,
        window_size=sequences.sides(),
    )


def memory_efficient(sequences: Sequences) -> Any:
    """Run torch's memory-efficient attention: in every torch, and for 32-bit numbers, too."""
    import torch

    if sequences.window is not None:
        raise NotImplementedError("memory-efficient attention has no window here")
    found = torch.ops.aten._efficient_attention_forward(
        sequences.query[None],
        sequences.all_heads(sequences.key)[None],
        sequences.all_heads(sequences.value)[None],
        None,
        sequences.query_starts,
        sequences.key_starts,
        sequences.longest_query,
        sequences.longest_key,
        0.0,
        1 if sequences.causal else 0,  # 1: from the top left
        False,
        scale=sequences.scale,
    )
    return found[0][0]


def find_kernels(model: Any) -> list[Kernel]:
    """Return the kernels that may run the model's attention where it is, the fastest first."""
    if model.device.type != "cuda":
        return []
    short = model.dtype.itemsize == 2
    known = [torch_varlen, flash_attention] if short else []
    return [kernel for kernel in (*known, memory_efficient) if _is_here(kernel)]


def _is_here(kernel: Kernel) -> bool:
    """Tell whether what the kernel needs can be imported."""
    try:
        if kernel is torch_varlen:
            import_module("torch.nn.attention.varlen")
        elif kernel is flash_attention:
            _import_flash_attention()
    except Exception:  # a package that does not fit this torch raises anything
        return False
    return True


@cache
def _import_flash_attention() -> Any:
    try:
        return import_module("flash_attn").flash_attn_varlen_func
    except ImportError:
        kernels = import_module("kernels")
        return kernels.get_kernel("kernels-community/flash-attn2").flash_attn_varlen_func


@cache
def _list_parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
