"""Exchange the layers of a model that hears on a CPU for faster ones that answer the same."""

from __future__ import annotations

from typing import Any

from .image_layers import fuse_activations, pays
from .linears import CLOSE, MOST_BYTES, FasterLayers, list_linears, make_prepacked

_TEXTS = 40  # rows that a vocabulary's head gets in a step, about
_WIDEST = 2**20  # a step's texts read the whole head: unlike that of a text's many tokens, it pays
_WORTH = 0.97  # of the time of the usual layers


def use_faster_layers(model: Any) -> None:
    """Exchange the layers of a Whisper model: the vocabulary's head, its encoder, its decoder.

    Each of these is tried by a part of it, which takes a fraction of a second.
    """
    import torch

    if model.device.type != "cpu" or str(model.dtype).removeprefix("torch.") not in CLOSE:
        return
    encoder, decoder, head = model.get_encoder(), model.get_decoder(), model.proj_out
    random = torch.Generator().manual_seed(0)
    width, positions = model.config.d_model, model.config.max_source_positions
    heard = torch.randn(1, positions, width, generator=random).to(model.dtype)
    texts = heard[0, :_TEXTS]
    first = decoder.layers[0]
    parts = (
        ([head], lambda: head(texts)),
        (list(encoder.layers), lambda: encoder.layers[0](heard, None)),
        (list(decoder.layers), lambda: first.fc2(first.activation_fn(first.fc1(texts)))),
    )
    left = MOST_BYTES
    with torch.no_grad():
        for modules, run in parts:
            size = sum(weights.nbytes for one in modules for weights in one.parameters())
            if size > left:
                continue
            tried = FasterLayers([])
            try:
                tried = _exchange(modules[0])
                if pays(run, tried, _WORTH):
                    for module in modules:
                        _exchange(module).use()
                    left -= size
            except Exception:  # a CPU or a torch without this product
                tried.leave()


def _exchange(module: Any) -> FasterLayers:
    """Return faster layers for those of a module, not yet in use."""
    linears = FasterLayers([(one, make_prepacked(one)) for one in list_linears(module, _WIDEST)])
    return FasterLayers([*linears.forwards, *fuse_activations(module, linears)])
