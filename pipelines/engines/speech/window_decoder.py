"""Compute the tokens that may follow in the windows of audio that are written down now.

Each window keeps its keys and values apart, so it joins and leaves without moving others, and the
texts that are searched in it share what its encoder says. The linear layers see the tokens of all
windows at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pipemill.actors.device_transfer import to_device
from torch.nn.functional import scaled_dot_product_attention

from ..generation.hypotheses import Hypotheses

_COLUMNS = 64  # a window's keys and values grow by so many tokens

Attend = Callable[[int, torch.Tensor], torch.Tensor]
Layers = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(eq=False)
class Window:
    """A window of audio, and the texts that are searched for it.

    Attributes:
        states: the encoder's output, shape (1, positions, width); None after its keys were made.
        hypotheses: the texts.
        cross: keys and values of the encoder's output in each layer, (1, heads, positions, width).
        own: those of the texts, (texts, heads, columns, width).
        length: the columns of `own` in use.
        error: why it can't be written down.
    """

    states: torch.Tensor | None
    hypotheses: Hypotheses
    cross: Layers = field(default_factory=list)
    own: Layers = field(default_factory=list)
    length: int = 0
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or self.hypotheses.is_done

    def release(self) -> None:
        self.states, self.cross, self.own = None, [], []


class WindowDecoder:
    """The decoder of a Whisper model."""

    def __init__(self, model: Any) -> None:
        self.model, self.decoder = model, model.get_decoder()

    def window_bytes(self, beams: int) -> int:
        """Return the memory of a window's keys and values."""
        config = self.model.config
        columns = config.max_source_positions + beams * config.max_target_positions
        sizes = 2 * config.decoder_layers * config.d_model * self.model.dtype.itemsize
        return int(columns * sizes)

    def begin(self, window: Window) -> None:
        """Compute a window's prompt, and the first tokens of its texts."""
        self._make_cross(window)
        prompt = to_device(window.hypotheses.texts[0], self.model.device)
        count = len(prompt)

        def attend_own(layer: int, states: torch.Tensor) -> torch.Tensor:
            query, keys, values = self._project(layer, states, [slice(None)])[0]
            query, keys, values = (one.transpose(0, 2) for one in (query, keys, values))
            window.own.append((keys, values))
            return _join(scaled_dot_product_attention(query, keys, values, is_causal=True, scale=1))

        def attend_cross(layer: int, states: torch.Tensor) -> torch.Tensor:
            return self._attend_cross(layer, states, [window], [slice(0, count)])

        states = self._run(
            prompt, torch.arange(count, device=prompt.device), attend_own, attend_cross
        )
        window.length = count
        beams = window.hypotheses.rules.beams
        window.own = [tuple(_reserve(one, beams) for one in both) for both in window.own]
        self._extend([window], states[-1:], [slice(0, 1)])

    def step(self, windows: list[Window]) -> None:
        """Add a token to each text of the windows."""
        parts, first = [], 0
        for window in windows:
            parts.append(slice(first, first := first + len(window.hypotheses.texts)))
        device = self.model.device
        ids = to_device([t[-1] for w in windows for t in w.hypotheses.texts], device)
        places = to_device([w.length for w in windows for _ in w.hypotheses.texts], device)

        def attend_own(layer: int, states: torch.Tensor) -> torch.Tensor:
            outputs = []
            projected = self._project(layer, states, parts)
            for window, (query, keys, values) in zip(windows, projected, strict=True):
                end, count = window.length + 1, len(query)
                all_keys, all_values = window.own[layer]
                all_keys[:count, :, window.length] = keys[:, :, 0]
                all_values[:count, :, window.length] = values[:, :, 0]
                heard = scaled_dot_product_attention(
                    query, all_keys[:count, :, :end], all_values[:count, :, :end], scale=1
                )
                outputs.append(heard.flatten(1))
            return torch.cat(outputs)

        def attend_cross(layer: int, states: torch.Tensor) -> torch.Tensor:
            return self._attend_cross(layer, states, windows, parts)

        for window in windows:
            _grow(window)
        states = self._run(ids, places, attend_own, attend_cross)
        for window in windows:
            window.length += 1
        self._extend(windows, states, parts)

    def _run(
        self, ids: torch.Tensor, places: torch.Tensor, attend_own: Attend, attend_cross: Attend
    ) -> torch.Tensor:
        """Return the decoder's output for tokens, shape (tokens, width)."""
        decoder = self.decoder
        states = decoder.embed_tokens(ids) + decoder.embed_positions.weight[places]
        for number, layer in enumerate(decoder.layers):
            heard = attend_own(number, layer.self_attn_layer_norm(states))
            states = states + layer.self_attn.out_proj(heard)
            heard = attend_cross(number, layer.encoder_attn_layer_norm(states))
            states = states + layer.encoder_attn.out_proj(heard)
            inner = layer.fc1(layer.final_layer_norm(states))
            states = states + layer.fc2(layer.activation_fn(inner))
        return decoder.layer_norm(states)

    def _extend(self, windows: list[Window], states: torch.Tensor, parts: list[slice]) -> None:
        """Choose the next tokens of all texts.

        states: the decoder's output for each text's last token.
        """
        logits = self.model.proj_out(states).float()
        best = []
        for window, part in zip(windows, parts, strict=True):
            scores = window.hypotheses.adjust(logits[part])
            best.append(torch.topk(scores.flatten(), window.hypotheses.rules.candidates))
        width = logits.shape[-1]
        # Of all windows at once: the host waits for the device only here. A double holds any index.
        values = torch.cat([one.values.double() for one in best])
        indices = torch.cat([one.indices.double() for one in best])
        found = zip(*torch.stack([values, indices]).tolist(), strict=True)
        for window in windows:
            some = itertools.islice(found, window.hypotheses.rules.candidates)
            kept = window.hypotheses.extend(
                [(value, *divmod(int(index), width)) for value, index in some]
            )
            if window.is_done:
                window.release()
            elif kept != list(range(len(kept))):
                _reorder(window, kept)

    def _make_cross(self, window: Window) -> None:
        for layer in self.decoder.layers:
            attention = layer.encoder_attn
            keys, values = (
                _split(projection(window.states), attention.num_heads)
                for projection in (attention.k_proj, attention.v_proj)
            )
            window.cross.append((keys, values))
        window.states = None

    def _project(self, layer: int, states: torch.Tensor, parts: list[slice]) -> list[Any]:
        """Return queries, keys and values for each part, of shape (tokens, heads, 1, width)."""
        attention = self.decoder.layers[layer].self_attn
        several = (
            attention.q_proj(states) * attention.scaling,
            attention.k_proj(states),
            attention.v_proj(states),
        )
        heads = [one.view(len(one), attention.num_heads, 1, -1) for one in several]
        return [tuple(one[part] for one in heads) for part in parts]

    def _attend_cross(
        self, layer: int, states: torch.Tensor, windows: list[Window], parts: list[slice]
    ) -> torch.Tensor:
        attention = self.decoder.layers[layer].encoder_attn
        query = _split((attention.q_proj(states) * attention.scaling)[None], attention.num_heads)
        heard = [
            _join(scaled_dot_product_attention(query[:, :, part], *window.cross[layer], scale=1))
            for window, part in zip(windows, parts, strict=True)
        ]
        return torch.cat(heard)


def _split(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Return states of shape (1, tokens, all) as (1, heads, tokens, width)."""
    return states.view(*states.shape[:2], heads, -1).transpose(1, 2).contiguous()


def _join(heard: torch.Tensor) -> torch.Tensor:
    """Return the outputs of heads, (1, heads, tokens, width), as (tokens, all)."""
    return heard[0].transpose(0, 1).flatten(1)


def _reserve(prompt: torch.Tensor, texts: int) -> torch.Tensor:
    """Return room for the keys or values of several texts that begin with the same prompt."""
    _, heads, count, width = prompt.shape
    room = prompt.new_empty((texts, heads, count + _COLUMNS, width))
    room[:, :, :count] = prompt
    return room


def _grow(window: Window) -> None:
    """Make room for one more column."""
    if window.own[0][0].shape[2] > window.length:
        return
    window.own = [
        tuple(torch.nn.functional.pad(one, (0, 0, 0, _COLUMNS)) for one in both)
        for both in window.own
    ]


def _reorder(window: Window, kept: list[int]) -> None:
    """Give each text the keys and values of the one that it continues."""
    index = to_device(kept, window.own[0][0].device)
    for both in window.own:
        for one in both:
            one[: len(kept), :, : window.length] = one[index, :, : window.length]
