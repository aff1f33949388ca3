"""Tell a decoder's modules what its `forward` can't: positions of texts, and beams that share.

And keep the adapters as they were when the texts began.
"""

from __future__ import annotations

import inspect
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pipemill.actors.device_transfer import to_device
from transformers.generation import GenerationMixin

from ..base import Values

# What attends to the encoder's output is called so: in BART's family, T5's, GPT-2, and T5Gemma.
_CROSS_ATTENTION = ("encoder_attn", "EncDecAttention", "crossattention", "cross_attn")
# How many positions come before, in what embeds them: since transformers 5.24, and before.
_LENGTHS = {"cache_length", "past_key_values_length"}


class StepHooks:
    """Hooks of an encoder-decoder's decoder, which do something inside `step` only.

    Attributes:
        sets_positions: whether each text can have its own position, where the model counts it.
        shares_encoder: whether the beams of a text can share what its encoder read.
    """

    def __init__(self, model: Any) -> None:
        modules = dict(model.get_decoder().named_modules())
        embed = [one for name, one in modules.items() if name.endswith("embed_positions")]
        cross = [
            one for name, one in modules.items() if name.rpartition(".")[2] in _CROSS_ATTENTION
        ]
        self.sets_positions = False
        self.shares_encoder = bool(cross)
        self._thread: int | None = None
        self._positions: list[int] = []
        self._beams = 1
        self._length = ""
        if len(embed) == 1:
            self._hook_positions(embed[0])
        for one in cross:
            one.register_forward_pre_hook(self._join_beams, with_kwargs=True)
            one.register_forward_hook(self._separate_beams)

    @contextmanager
    def step(self, positions: list[int], beams: int) -> Iterator[None]:
        """Compute a token of each text in this block, in this thread.

        Args:
            positions: those of the tokens of each text; with beams each of them is a text.
            beams: so many texts after each other share what their encoder read.
        """
        self._positions, self._beams, self._thread = positions, beams, threading.get_ident()
        try:
            yield
        finally:
            self._thread = None

    def _is_on(self) -> bool:
        return self._thread == threading.get_ident()

    def _hook_positions(self, embed: Any) -> None:
        """Give each text its position in what embeds positions, if it takes them or counts them."""
        parameters = set(inspect.signature(embed.forward).parameters)
        if isinstance(embed, torch.nn.Embedding) and "position_ids" in parameters:
            embed.register_forward_pre_hook(self._set_positions, with_kwargs=True)
            embed.register_forward_hook(self._lay_out)
        elif {"input_ids", "inputs_embeds"} < parameters and parameters & _LENGTHS:
            (self._length,) = parameters & _LENGTHS
            embed.register_forward_hook(self._count_apart)
        else:
            return
        self.sets_positions = True

    def _set_positions(self, embed: Any, given: tuple[Any, ...], named: Values) -> Any:
        if not self._is_on():
            return None
        positions = to_device(self._positions, embed.weight.device)
        return given[:2], {**named, "position_ids": positions}

    def _lay_out(self, embed: Any, given: Any, output: torch.Tensor) -> Any:
        return output.reshape(-1, 1, output.shape[-1]) if self._is_on() else None

    def _count_apart(self, embed: Any, given: tuple[Any, ...], output: torch.Tensor) -> Any:
        """Embed the texts of each position apart: some models count no padding tokens."""
        if not self._is_on():
            return None
        texts: dict[int, list[int]] = defaultdict(list)
        for text, position in enumerate(self._positions):
            texts[position].append(text)
        for position, some in texts.items():
            rows = to_device(some, output.device)
            output[rows] = embed.forward(given[0][rows], **{self._length: position})
        return output

    def _join_beams(self, module: Any, given: tuple[Any, ...], named: Values) -> Any:
        """Make the beams of a text several queries of one."""
        if self._beams == 1 or not self._is_on():
            return None
        states = given[0] if given else named["hidden_states"]
        # ProphetNet asks for the next tokens, too: several queries of each text.
        rows, queries, width = states.shape
        beams = self._beams
        named = {
            name: _share_mask(value[::beams], beams * queries) if _is_mask(value, rows) else value
            for name, value in named.items()
        }
        states = states.reshape(rows // beams, beams * queries, width)
        if given:
            return (states, *given[1:]), named
        return given, {**named, "hidden_states": states}

    def _separate_beams(self, module: Any, given: Any, output: Any) -> Any:
        if self._beams == 1 or not self._is_on():
            return None
        states, *others = output
        return states.reshape(-1, states.shape[1] // self._beams, states.shape[-1]), *others


def _share_mask(mask: torch.Tensor, queries: int) -> torch.Tensor:
    """Return a text's mask for all its queries: LED wants it said for each of them.

    ProphetNet has a mask of each head, and wants it said once.
    """
    return mask if mask.shape[1] > 1 else mask[:, :, :1].expand(-1, -1, queries, -1)


def _is_mask(value: Any, rows: int) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 4 and len(value) == rows


class AdapterSwitch:
    """The adapters that a model's own `generate` turns on or off, by what a prompt has.

    Granite Speech turns them on for sound. Texts that run at once need the same.

    Attributes:
        layers: PEFT's layers of such a model; of any other none.
    """

    def __init__(self, model: Any) -> None:
        self.layers: list[Any] = []
        if type(model).generate is not GenerationMixin.generate:
            self.layers = [one for one in model.modules() if _has_adapter(one)]
        self._off: list[bool] = []

    def save(self) -> None:
        """Note which adapters are off."""
        self._off = [layer.disable_adapters for layer in self.layers]

    def restore(self) -> None:
        """Turn the adapters on or off as they were then: other prompts came between."""
        for layer, off in zip(self.layers, self._off, strict=True):
            if layer.disable_adapters != off:
                layer.enable_adapters(not off)


def _has_adapter(module: Any) -> bool:
    # A model has a method of this name.
    return isinstance(getattr(module, "disable_adapters", None), bool)
