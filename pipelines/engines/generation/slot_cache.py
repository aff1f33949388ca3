"""Keep the keys and values of the texts that are being written, each in a slot while it runs.

All texts end at the same column, so a step adds one column to all of them. A slot that becomes free
takes the last one's text, and a new text is copied in behind it. Nothing else is moved until the
columns are used up: transformers' caches copy everything in each step.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

_COLUMNS = 64  # tensors grow by multiples of it


class SlotCache:
    """The slots of all layers.

    Attributes:
        lengths: the columns of each text in use, in the order of the slots.
        start: the first column that a text in use has.
        end: the column behind the last one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lengths: list[int] = []
        self.start = self.end = 0
        self._layers: list[_SlotLayer] = []
        self._mask = torch.zeros((0, 0), dtype=torch.long, device=device)
        self._cross: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._cross_mask: torch.Tensor | None = None
        self._cross_width = 0

    @property
    def count(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Return the columns that a step attends to, without its own."""
        return self.end - self.start

    @property
    def column_bytes(self) -> int:
        """Return the memory of a column of one text; 0 before there were any."""
        return sum(layer.column_bytes for layer in self._layers)

    def mask(self) -> torch.Tensor:
        """Return which columns each text has in the next step, shape (texts, width + 1)."""
        return self._mask[: self.count, self.start : self.end + 1]

    def encoder_mask(self) -> torch.Tensor | None:
        """Return which tokens each text's encoder read, shape (texts, tokens)."""
        return self._cross_mask

    def for_step(self) -> Cache:
        """Return the cache with which a model computes the next step."""
        self._reserve(self.count, 0)
        self._mask[: self.count, self.end] = 1
        for layer in self._layers:
            layer.is_written = False
        cache = Cache(layers=list(self._layers))
        if not self._cross:
            return cache
        cross = DynamicCache()
        for keys, values in self._cross:
            layer = DynamicLayer()
            layer.update(keys, values)
            cross.layers.append(layer)
        both = EncoderDecoderCache(cache, cross)
        both.is_updated = dict.fromkeys(range(len(self._cross)), True)
        return both

    def advance(self) -> None:
        """Count the column that a step wrote."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def add(
        self, filled: Cache, lengths: list[int], shared: int, encoder_mask: torch.Tensor | None
    ) -> None:
        """Copy the texts of another cache into new slots.

        Args:
            filled: what a model filled for these texts.
            lengths: the columns of each. Its `shared` first ones are the first of `filled`, the
                others its last.
            shared: see above.
            encoder_mask: as `encoder_mask` returns it, of these texts.
        """
        own = filled.self_attention_cache if isinstance(filled, EncoderDecoderCache) else filled
        if not self._layers:
            self._layers = [_SlotLayer(self, layer.keys, layer.values) for layer in own.layers]
        first = self.count
        self._reserve(first + len(lengths), max(lengths))
        for slot, length in enumerate(lengths, start=first):
            row, begin = slot - first, self.end - length
            self._mask[slot] = 0
            self._mask[slot, begin : self.end] = 1
            for layer, source in zip(self._layers, own.layers, strict=True):
                layer.copy_in(slot, begin, self.end, shared, source.keys[row], source.values[row])
        self.lengths += lengths
        self.start = self.end - max(self.lengths)
        if encoder_mask is not None:
            cross = filled.cross_attention_cache.layers
            self._add_cross([(layer.keys, layer.values) for layer in cross], encoder_mask)

    def remove(self, slot: int) -> None:
        """Free a slot: the last text moves there."""
        last = self.count - 1
        if slot != last:
            begin = self.end - self.lengths[last]
            self._mask[slot] = self._mask[last]
            for layer in self._layers:
                layer.keys[slot, :, begin : self.end] = layer.keys[last, :, begin : self.end]
                layer.values[slot, :, begin : self.end] = layer.values[last, :, begin : self.end]
            for keys, values in self._cross:
                keys[slot], values[slot] = keys[last], values[last]
            if self._cross_mask is not None:
                self._cross_mask[slot] = self._cross_mask[last]
            self.lengths[slot] = self.lengths[last]
        self.lengths.pop()
        self._cross = [(keys[:last], values[:last]) for keys, values in self._cross]
        if self._cross_mask is not None:
            self._cross_mask = self._cross_mask[:last]
        # Columns that only the freed slot had are not attended to any more.
        self.start = self.end - max(self.lengths, default=0)

    def clear(self) -> None:
        """Free all slots, and their memory."""
        self.__init__(self.device)  # type: ignore[misc]

    def _reserve(self, slots: int, columns: int) -> None:
        """Make room for so many slots, for texts of so many columns, and for a step's column."""
        if slots <= len(self._mask) and columns <= self.end < self._mask.shape[1]:
            return
        width = max(self.width, columns)
        have = self._mask.shape
        # More than is used: everything is moved only after as many steps.
        most = max(have[1], -(-(width + max(width // 2, _COLUMNS)) // _COLUMNS) * _COLUMNS)
        shape = (max(have[0], slots if slots <= have[0] else 2 * slots), most)
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

    def _add_cross(
        self, cross: list[tuple[torch.Tensor, torch.Tensor]], mask: torch.Tensor
    ) -> None:
        if not self._cross or self._cross_mask is None or not len(self._cross_mask):
            self._cross = [(keys.clone(), values.clone()) for keys, values in cross]
            self._cross_mask = mask.clone()
            return
        self._cross = [
            (_join(old[0], new[0], 2), _join(old[1], new[1], 2))
            for old, new in zip(self._cross, cross, strict=True)
        ]
        self._cross_mask = _join(self._cross_mask, mask, 1)


class _SlotLayer(DynamicLayer):
    """The slots of one layer: keys and values of shape (slots, heads, columns, width)."""

    def __init__(self, slots: SlotCache, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.slots, self.is_written = slots, False
        self.lazy_initialization(keys, values)
        self.keys, self.values = (
            one.new_zeros((0, one.shape[1], 0, one.shape[3])) for one in (keys, values)
        )

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        slots, count = self.slots, self.slots.count
        self.keys[:count, :, slots.end] = key_states[:, :, 0]
        self.values[:count, :, slots.end] = value_states[:, :, 0]
        self.is_written = True
        columns = slice(slots.start, slots.end + 1)
        return self.keys[:count, :, columns], self.values[:count, :, columns]

    @property
    def column_bytes(self) -> int:
        return sum(one.shape[1] * one.shape[3] * one.itemsize for one in (self.keys, self.values))

    def get_seq_length(self) -> int:
        return self.slots.width + self.is_written

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.slots.width + query_length, 0

    def copy_in(
        self, slot: int, begin: int, end: int, shared: int, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Copy a text of `end - begin` columns from keys and values of (heads, columns, width)."""
        rest = end - begin - shared
        for mine, other in ((self.keys, keys), (self.values, values)):
            mine[slot, :, begin : begin + shared] = other[:, :shared]
            mine[slot, :, end - rest : end] = other[:, other.shape[1] - rest :]

    def move(self, shape: tuple[int, int], used: tuple[slice, slice], at: slice) -> None:
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros((shape[0], old.shape[1], shape[1], old.shape[3]))
            new[used[0], :, at] = old[used[0], :, used[1]]
            setattr(self, name, new)


def _join(old: torch.Tensor, new: torch.Tensor, axis: int) -> torch.Tensor:
    """Join texts whose encoders read unequal numbers of tokens: zeros follow the shorter ones."""
    longest = max(old.shape[axis], new.shape[axis])

    def lengthen(one: torch.Tensor) -> torch.Tensor:
        after = [0, 0] * (one.dim() - axis - 1) + [0, longest - one.shape[axis]]
        return torch.nn.functional.pad(one, after)

    return torch.cat([lengthen(old), lengthen(new)])
