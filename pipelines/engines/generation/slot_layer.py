"""Keep the keys and values that one layer of a model makes of the texts in a `SlotCache`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import DynamicLayer

from .huge_pages import make_zeros

if TYPE_CHECKING:
    from .slot_cache import SlotCache


class SlotLayer(DynamicLayer):
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
        self,
        slots: slice,
        begin: int,
        end: int,
        shared: int,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Copy a text of `end - begin` columns from keys and values of (heads, columns, width)."""
        rest = end - begin - shared
        for mine, other in ((self.keys, keys), (self.values, values)):
            mine[slots, :, begin : begin + shared] = other[:, :shared]
            mine[slots, :, end - rest : end] = other[:, other.shape[1] - rest :]

    def copy_within(self, pairs: list[tuple[slice, torch.Tensor, torch.Tensor]]) -> None:
        """Copy columns from slots to other ones, all at once. pairs: columns, to, source."""
        for mine in (self.keys, self.values):
            read = [mine[source, :, columns] for columns, _, source in pairs]
            for (columns, to, _), copied in zip(pairs, read, strict=True):
                mine[to, :, columns] = copied

    def move(self, shape: tuple[int, int], used: tuple[slice, slice], at: slice) -> None:
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = make_zeros(old, (shape[0], old.shape[1], shape[1], old.shape[3]))
            new[used[0], :, at] = old[used[0], :, used[1]]
            setattr(self, name, new)
