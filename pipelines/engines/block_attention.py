"""Attention in blocks, as BigBird's: a text too short for it must not turn it off for others."""

from __future__ import annotations

from typing import Any

_IN_BLOCKS = "block_sparse"


def keep_block_attention(model: Any) -> None:
    """Let each forward pass of the model begin with the attention that its config names.

    For a short text transformers changes the model for good: the answers to long ones would depend
    on what was computed before.
    """
    hooked: set[Any] = set()
    for module in model.modules():  # a module comes before those in it
        if getattr(module, "attention_type", None) == _IN_BLOCKS and module not in hooked:
            hooked.update(module.modules())
            module.register_forward_pre_hook(_use_blocks)


def attends_in_blocks(model: Any) -> bool:
    """Tell whether a part of the model does, unless a text is too short for it."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    return any(getattr(config, "attention_type", None) == _IN_BLOCKS for config in configs)


def _use_blocks(module: Any, args: Any) -> None:
    module.set_attention_type(_IN_BLOCKS)
