"""What a text's own length decides, and in transformers also the lengths of texts before it.

BigBird's attention in blocks is turned off by a text that is too short for it, and dynamic
positions keep the scale of the longest text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_IN_BLOCKS, _DYNAMIC = "block_sparse", "dynamic"


def forget_other_lengths(model: Any) -> None:
    """Let each text be computed as by a model that has computed none before."""
    hooked: set[Any] = set()
    for module in model.modules():  # a module comes before those in it
        if getattr(module, "attention_type", None) == _IN_BLOCKS and module not in hooked:
            hooked.update(module.modules())
            module.register_forward_pre_hook(_use_blocks)
        kinds = getattr(module, "rope_type", None)
        if _DYNAMIC in (kinds.values() if isinstance(kinds, Mapping) else (kinds,)):
            module.register_forward_pre_hook(_reset_scale, with_kwargs=True)


def attends_in_blocks(model: Any) -> bool:
    """Tell whether a part of the model does, unless a text is too short for it."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    return any(getattr(config, "attention_type", None) == _IN_BLOCKS for config in configs)


def _use_blocks(module: Any, args: Any) -> None:
    module.set_attention_type(_IN_BLOCKS)


def _reset_scale(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    places = kwargs.get("position_ids", args[1] if len(args) > 1 else None)
    if places is None or int(places.min()) > 0:  # no text begins here
        return
    for name, value in dict(module.named_buffers(recurse=False)).items():
        if name.endswith("original_inv_freq"):
            own = name.replace("original_", "")
            setattr(module, own, value.to(getattr(module, own).device, copy=True))
    for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
        setattr(module, name, module.original_max_seq_len)
