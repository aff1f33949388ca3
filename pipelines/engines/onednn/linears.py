"""Run linear layers on a CPU with their weights in oneDNN's own order, if that is faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# The original weights stay: others may read them. So the copies may not be more than this.
MOST_BYTES = 512 * 2**20
_FEWEST_WEIGHTS = 2**16  # a smaller layer has nothing to gain
# The head over a vocabulary gains nothing, either: it gets few tokens. Trying it would take
# gigabytes.
_WIDEST = 2**15
# For each new number of tokens oneDNN makes a kernel: with multiples of this there are few.
STEP = 16
_TOKENS = 512
_TRIES = 5
_WORTH = 0.97  # of the time of the usual product
_NOTHING: tuple[str, list[Any], str] = ("none", [], "")  # after the product
# Of the largest output; rounding gives some 1e-6 in float32.
CLOSE = {"float32": 1e-5, "bfloat16": 2e-2}


@dataclass(frozen=True)
class FasterLayers:
    """Layers with another `forward`.

    forwards: each layer with what takes the place of its `forward`.
    """

    forwards: list[tuple[Any, Callable[[Any], Any]]]

    def use(self) -> None:
        """Exchange the layers' `forward`."""
        for layer, forward in self.forwards:
            layer.forward = forward

    def leave(self) -> None:
        """Give the layers their own `forward` back."""
        for layer, _ in self.forwards:
            vars(layer).pop("forward", None)


def prepack_linears(model: Any) -> FasterLayers:
    """Return the model's large linear layers with their weights in oneDNN's order, not yet in use.

    torch reorders them in every call, or takes a product that needs no order. A measurement on the
    layer with the most weights, of some milliseconds, shows whether it pays and gives the same.

    It is for a model whose inputs have few shapes: for each new one oneDNN makes a kernel, which
    takes some milliseconds and keeps memory from being given back.
    """
    import torch

    layers = list_linears(model, _WIDEST)
    sizes = [layer.weight.nbytes for layer in layers]
    if not layers or sum(sizes) > MOST_BYTES or not torch.backends.mkldnn.is_available():
        return FasterLayers([])
    with torch.inference_mode():
        try:
            if not _pays(layers[sizes.index(max(sizes))]):
                return FasterLayers([])
            return FasterLayers([(layer, make_prepacked(layer)) for layer in layers])
        except (RuntimeError, AttributeError):  # a CPU or a torch that has no such product
            return FasterLayers([])


def list_linears(model: Any, widest: int) -> list[Any]:
    """Return the large layers that do what `torch.nn.Linear` does: not those of a subclass.

    widest: the most numbers that they give for a token.
    """
    import torch

    found = [module for module in model.modules() if type(module) is torch.nn.Linear]
    return [
        layer
        for layer in found
        if layer.weight.device.type == "cpu"
        and layer.weight.numel() >= _FEWEST_WEIGHTS
        and layer.out_features <= widest
        and str(layer.weight.dtype).removeprefix("torch.") in CLOSE
        and "forward" not in vars(layer)
    ]


def make_prepacked(layer: Any, gelu: bool = False) -> Callable[[Any], Any]:
    """Return a `forward` of the layer with its weights in oneDNN's order.

    gelu: whether it also does what a GELU after the layer does.
    """
    import torch

    weight, bias, usual = layer.weight, layer.bias, layer.forward
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    product, then = torch.ops.mkldnn._linear_pointwise, ("gelu", [], "none") if gelu else _NOTHING

    def forward(input: Any) -> Any:
        if input.dtype != weight.dtype or input.dim() < 2 or not input.numel():
            output = usual(input)
            return torch.nn.functional.gelu(output) if gelu else output
        return product(input, packed, bias, *then)

    return forward


def _pays(layer: Any) -> bool:
    import torch

    inputs = torch.randn(_TOKENS, layer.in_features, dtype=layer.weight.dtype)
    ways = (layer.forward, make_prepacked(layer))
    usual, packed = (way(inputs).float() for way in ways)
    close = CLOSE[str(layer.weight.dtype).removeprefix("torch.")]
    if (usual - packed).abs().max() > close * usual.abs().max():
        return False
    seconds = [float("inf"), float("inf")]
    for _ in range(_TRIES):  # in turn, and the least of each: the machine may be busy
        for number, way in enumerate(ways):
            start = time.perf_counter()
            way(inputs)
            seconds[number] = min(seconds[number], time.perf_counter() - start)
    return seconds[1] < _WORTH * seconds[0]
