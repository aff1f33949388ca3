"""An encoder's last layer for those tokens only that the model's head reads.

What the others become in it nobody looks at: they are needed for their keys and values alone.
Of a classifier with 6 layers that saves some 14 % of the arithmetic, of one with 12 some 7 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from pipemill.actors.device_transfer import to_device

from .onednn_linear import STEP
from .varlen_attention import SelectedTokens

# How a layer calls the linear layers of its keys and of its values.
_KEYS = ("key", "k_lin", "k_proj")
_VALUES = ("value", "v_lin", "v_proj")


@dataclass(frozen=True)
class LastLayer:
    """The layer, and the modules in it that make keys and values."""

    layer: Any
    key: Any
    value: Any

    @contextmanager
    def narrowed(self, places: np.ndarray) -> Iterator[SelectedTokens]:
        """Within it the layer gets and returns the tokens at these places of the stream, some of
        them again at the end, while its attention sees all."""
        asked = SelectedTokens(np.append(places, np.repeat(places[-1:], -len(places) % STEP)))
        index = to_device(asked.places, self.key.weight.device)
        states: list[Any] = []

        def before(module: Any, args: Any, kwargs: Any) -> Any:
            states[:] = args[:1] or [kwargs.pop("hidden_states")]
            return (states[0][:, index], *args[1:]), kwargs

        def all_states(module: Any, args: Any) -> Any:
            return states[0]

        def keep(name: str) -> Any:
            def kept(module: Any, args: Any, output: Any) -> Any:
                setattr(asked, name, output)
                return output[:, index]  # of the shape that the layer looks for

            return kept

        hooks = [
            self.layer.register_forward_pre_hook(before, with_kwargs=True),
            self.key.register_forward_pre_hook(all_states),
            self.value.register_forward_pre_hook(all_states),
            self.key.register_forward_hook(keep("keys")),
            self.value.register_forward_hook(keep("values")),
        ]
        try:
            yield asked
        finally:
            for hook in hooks:
                hook.remove()


def find_last_layer(model: Any) -> LastLayer | None:
    """Of the longest stack of layers; None if none is found whose keys and values have a name.

    Whether it works that way must be tried: layers may share their weights, or turn their keys.
    """
    import torch

    stacks = [m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList)]
    layer = max(stacks, key=len)[-1] if stacks else None
    if layer is None:
        return None
    found = [
        [module for name, module in layer.named_modules() if name.rpartition(".")[2] in names]
        for names in (_KEYS, _VALUES)
    ]
    if any(len(modules) != 1 for modules in found):
        return None
    return LastLayer(layer, found[0][0], found[1][0])
