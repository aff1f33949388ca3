"""Keep the keys and values of the texts that are being written, each in a slot while it runs.

All texts end at the same column, so a step adds one column to all of them. A slot that becomes free
takes the last one's text, and a new text is copied in behind it. Nothing else is moved until the
columns are used up: transformers' caches copy everything in each step.

The beams of a search have a slot each, side by side, and share what an encoder read. They begin
alike, so a beam that goes on as another one gets only the columns in which they differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pipemill.actors.device_transfer import to_device
from transformers.cache_utils import Cache, EncoderDecoderCache, LinearAttentionLayer

from .cross_cache import CrossCache
from .slot_layer import SlotLayer, StateLayer

_COLUMNS = 64  # tensors grow by multiples of it
_MARGIN = 4  # columns that a first try hides before the longest text
# A value that changes what a model writes that sees it, and is a number in 16 bits, too.
_SPOILED = 1000.0


@dataclass(frozen=True, kw_only=True)
class Move:
    """A beam that goes on as another one of its text did: only their last columns differ."""

    to: int
    source: int
    columns: int


class SlotCache:
    """The slots of all layers.

    Attributes:
        beams: the slots of each text.
        lengths: the columns of each text in use, in the order of the slots.
        start: the first column that a step attends to: the longest text's, or `margin` before it.
        end: the column behind the last one.
        margin: columns before the longest text, which the mask hides, too.
        hidden: the values in the columns that the mask hides.
    """

    def __init__(self, device: torch.device, margin: int = 0, hidden: float = 0.0) -> None:
        self.device = device
        self.beams = 1
        self.lengths: list[int] = []
        self.start = self.end = 0
        self.margin, self.hidden = margin, hidden
        self._spoiled = _SPOILED
        self._layers: list[SlotLayer | StateLayer] = []
        self._mask = torch.zeros((0, 0), dtype=torch.long, device=device)
        self._cross = CrossCache()

    def spoil(self, whether: bool) -> None:
        """Fill the columns that the mask hides with large values, and have some for any texts.

        A model that does not hear the mask then writes other texts, however alike they are in
        length; and others each time, since the values' sign changes.
        """
        self.margin, self.hidden = (_MARGIN, self._spoiled) if whether else (0, 0.0)
        if whether:
            self._spoiled = -self._spoiled

    @property
    def count(self) -> int:
        """Return the number of slots in use."""
        return len(self.lengths) * self.beams

    @property
    def width(self) -> int:
        """Return the columns that a step attends to, without its own."""
        return self.end - self.start

    @property
    def column_bytes(self) -> int:
        """Return the memory of a column of one slot; 0 before there were any."""
        return sum(layer.column_bytes for layer in self._layers)

    @property
    def state_bytes(self) -> int:
        """Return the memory that a slot takes however long its text is, as `column_bytes`."""
        return sum(layer.state_bytes for layer in self._layers)

    def positions(self) -> list[int]:
        """Return the position of the next step's token in each slot."""
        return [length for length in self.lengths for _ in range(self.beams)]

    def mask(self) -> torch.Tensor:
        """Return which columns each slot has in the next step, shape (slots, width + 1)."""
        return self._mask[: self.count, self.start : self.end + 1]

    @property
    def hides(self) -> bool:
        """Tell whether `mask` hides a column from any slot."""
        return min(self.lengths, default=0) < self.width

    @property
    def encoder_hides(self) -> bool:
        """Tell whether `encoder_mask` hides a token from any slot."""
        return self._cross.hides

    def encoder_mask(self) -> torch.Tensor:
        """Return which tokens each slot's encoder read, shape (slots, tokens)."""
        mask = self._cross.mask()
        return mask if self.beams == 1 else mask.repeat_interleave(self.beams, 0)

    def for_step(self) -> Cache:
        """Return the cache with which a model computes the next step."""
        self._reserve(self.count, 0)
        self._mask[: self.count, self.end] = 1
        for layer in self._layers:
            layer.begin_step()
        cache = Cache(layers=list(self._layers))
        if not self._cross.lengths:
            return cache
        both = EncoderDecoderCache(cache, self._cross.for_step())
        both.is_updated = dict.fromkeys(range(len(self._layers)), True)
        return both

    def advance(self) -> None:
        """Count the column that a step wrote."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def add(
        self,
        filled: Cache,
        lengths: list[int],
        shared: int,
        encoder_mask: torch.Tensor | None,
        beams: int = 1,
    ) -> None:
        """Copy the texts of another cache into new slots.

        Args:
            filled: what a model filled for these texts.
            lengths: the columns of each. Its `shared` first ones are the first of `filled`, the
                others its last.
            shared: see above.
            encoder_mask: which tokens each text's encoder read, shape (texts, tokens).
            beams: the slots of each text: as many as the others have.
        """
        own = filled.self_attention_cache if isinstance(filled, EncoderDecoderCache) else filled
        if not self._layers:
            self._layers = [self._make_layer(layer) for layer in own.layers]
        first = self.count
        self.beams = beams
        self._reserve(first + len(lengths) * beams, max(lengths) + self.margin)
        for row, length in enumerate(lengths):
            slots = slice(first + row * beams, first + (row + 1) * beams)
            begin = self.end - length
            self._mask[slots] = 0
            self._mask[slots, begin : self.end] = 1
            for layer, source in zip(self._layers, own.layers, strict=True):
                layer.copy_in(slots, begin, self.end, shared, source, row)
        self.lengths += lengths
        self._set_start()
        if encoder_mask is not None:
            self._cross.add(filled.cross_attention_cache, encoder_mask)

    def _make_layer(self, filled: Any) -> SlotLayer | StateLayer:
        if isinstance(filled, LinearAttentionLayer):
            return StateLayer(self, filled)
        return SlotLayer(self, filled.keys, filled.values)

    def move(self, moves: Iterable[tuple[int, Move]]) -> None:
        """Let beams go on as others of their text did. Each move comes with its text's number."""
        groups: dict[int, tuple[list[int], list[int]]] = {}
        for text, one in moves:
            # Powers of two: few copies, and none of much more than differs.
            to, source = groups.setdefault(1 << (one.columns - 1).bit_length(), ([], []))
            to.append(text * self.beams + one.to)
            source.append(text * self.beams + one.source)
        pairs = [
            (
                slice(max(self.end - columns, self.start), self.end),
                *(to_device(slots, self.device) for slots in both),
            )
            for columns, both in groups.items()
        ]
        for layer in self._layers:
            layer.copy_within(pairs)

    def remove(self, text: int) -> None:
        """Free the slots of a text: the last text moves there."""
        last = len(self.lengths) - 1
        if text != last:
            begin, gone = self.end - self.lengths[last], self.end - self.lengths[text]
            to, source = (slice(i * self.beams, (i + 1) * self.beams) for i in (text, last))
            self._mask[to] = self._mask[source]
            for layer in self._layers:
                layer.replace(to, source, begin, gone, self.end)
            self.lengths[text] = self.lengths[last]
        self.lengths.pop()
        if self._cross.lengths:
            self._cross.remove(text)
        # Columns that only the freed slots had are not attended to any more.
        self._set_start()

    def _set_start(self) -> None:
        # The margin's columns may be used up by texts that began without one.
        self.start = max(self.end - max(self.lengths, default=0) - self.margin, 0)

    def clear(self) -> None:
        """Free all slots, and their memory."""
        self.__init__(self.device, self.margin, self.hidden)  # type: ignore[misc]

    def _reserve(self, slots: int, columns: int) -> None:
        """Make room for so many slots, for texts of so many columns, and for a step's column."""
        if slots <= len(self._mask) and columns <= self.end < self._mask.shape[1]:
            return
        width = max(self.width, columns)
        have = self._mask.shape
        # More than is used: everything is moved only after as many steps.
        most = max(have[1], -(-(width + max(width // 2, _COLUMNS)) // _COLUMNS) * _COLUMNS)
        # The first texts may be all there are; when others join, more may follow.
        shape = (have[0] if slots <= have[0] else slots * (2 if have[0] else 1), most)
        used, at = (
            (slice(self.count), slice(self.start, self.end)),
            slice(width - self.width, width),
        )
        mask = self._mask.new_zeros(shape)
        mask[used[0], at] = self._mask[used]
        self._mask = mask
        for layer in self._layers:
            layer.move(shape, used, at)
        self.start, self.end = at.start, at.stop
