"""Exchange the layers of a model that sees images on a CPU for faster ones that answer the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .linears import CLOSE, FasterLayers, make_prepacked, prepack_linears

# Of the time of the usual layers, for one image. It gains by reading and writing less, which shows
# with more images only: 8 take 0.77 of the time, one as long as before. A CPU for which oneDNN has
# no such kernel takes many times as long.
_MOST_TIME = 1.1
_TRIES = 3


def use_faster_layers(model: Any, shape: tuple[int, ...]) -> FasterLayers:
    """Exchange a model's layers, and return those that were exchanged.

    Nothing says that a model calls its layers in the order in which they stand. A first run, of
    about four images, shows whether those that do the work of several give the same.

    Args:
        model: is called with `pixel_values` alone.
        shape: of an image's `pixel_values`, the same for all images: for each new shape oneDNN
            makes a kernel.
    """
    import torch

    linears, fused = prepack_linears(model), FasterLayers([])
    random = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, *shape, generator=random).to(next(model.parameters()).dtype)
    try:
        fused = FasterLayers([*fuse_activations(model, linears), *_fuse_convolutions(model)])
        linears.use()
        if fused.forwards and pays(lambda: model(pixel_values=pixels), fused, _MOST_TIME):
            fused.use()
            return FasterLayers([*linears.forwards, *fused.forwards])
    except Exception:  # a CPU or a torch without this product, a model with other inputs
        fused.leave()
    linears.use()
    return linears


Exchanged = Iterator[tuple[Any, Callable[[Any], Any]]]


def fuse_activations(model: Any, linears: FasterLayers) -> Exchanged:
    """Yield linear layers that do the GELU after them, and that GELU."""
    import torch
    from transformers.activations import GELUActivation

    large = {layer for layer, _ in linears.forwards}
    for parent in model.modules():
        layers = list(parent.children())
        first = next((layer for layer in layers if type(layer) is torch.nn.Linear), None)
        gelus = [
            layer
            for layer in layers
            if (type(layer) is torch.nn.GELU and layer.approximate == "none")
            or (type(layer) is GELUActivation and layer.act is torch.nn.functional.gelu)
        ]
        if first in large and len(gelus) == 1:
            yield first, make_prepacked(first, gelu=True)
            yield gelus[0], _pass_on


def _fuse_convolutions(model: Any) -> Exchanged:
    """Yield convolutions that do what the batch norm and the ReLU after them do, and those."""
    import torch

    for parent in model.modules():
        layers = [layer for layer in parent.children() if type(layer) is not torch.nn.Identity]
        for layer, norm, after in zip(layers, layers[1:], [*layers[2:], None], strict=False):
            if not (_is_plain(layer) and type(norm) is torch.nn.BatchNorm2d):
                continue
            if norm.training or norm.running_var is None or not norm.affine:
                continue
            relu = type(after) is torch.nn.ReLU
            yield layer, _fuse(layer, norm, relu)
            yield norm, _pass_on
            if relu:
                yield after, _pass_on


def _is_plain(layer: Any) -> bool:
    import torch

    return (
        type(layer) is torch.nn.Conv2d
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and "forward" not in vars(layer)
    )


def _fuse(layer: Any, norm: Any, relu: bool) -> Callable[[Any], Any]:
    """Return the convolution with the norm in its weights, on channels that come last."""
    import torch

    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if layer.bias is not None:
        shift = shift + layer.bias.double() * scale
    weight = (layer.weight.double() * scale[:, None, None, None]).float().detach()
    weight, bias = weight.contiguous(memory_format=torch.channels_last), shift.float().detach()
    product, then = torch.ops.mkldnn._convolution_pointwise, "relu" if relu else "none"
    places = layer.padding, layer.stride, layer.dilation, layer.groups

    def forward(input: Any) -> Any:
        last = input.contiguous(memory_format=torch.channels_last)
        return product(last, weight, bias, *places, then, [], "")

    return forward


def _pass_on(input: Any) -> Any:
    return input


def pays(run: Callable[[], Any], layers: FasterLayers, most_time: float) -> bool:
    """Tell whether faster layers give the same soon enough. They are not in use afterwards.

    Args:
        run: computes with the layers.
        layers: those to exchange.
        most_time: of the time that the usual layers take.
    """
    import torch

    seconds, outputs = [float("inf")] * 2, [None, None]
    with torch.inference_mode():
        for _ in range(_TRIES):  # in turn, and the least of each: the machine may be busy
            for number, exchange in enumerate((layers.leave, layers.use)):
                exchange()
                start = time.perf_counter()
                outputs[number] = run()
                seconds[number] = min(seconds[number], time.perf_counter() - start)
    layers.leave()
    usual, faster = (list(_list_tensors(output)) for output in outputs)
    return (
        seconds[1] < most_time * seconds[0]
        and len(usual) == len(faster)
        and all(map(_are_close, usual, faster))
    )


def _list_tensors(value: Any) -> Iterator[Any]:
    if hasattr(value, "norm"):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _list_tensors(inner)


def _are_close(one: Any, other: Any) -> bool:
    if one.shape != other.shape:
        return False
    close = CLOSE.get(str(one.dtype).removeprefix("torch."), 0)
    return bool((one.float() - other.float()).norm() <= close * one.float().norm())
