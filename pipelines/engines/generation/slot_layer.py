"""Keep what one layer of a model makes of texts in a `SlotCache`, and first of their prompts."""

from __future__ import annotations

import ctypes
import functools
import mmap
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import (
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    EncoderDecoderCache,
    LinearAttentionLayer,
)

if TYPE_CHECKING:
    from .slot_cache import SlotCache

_LARGE_PAGE = 2 * 2**20
# Layers that keep keys and values.
_OF_KEYS = {"DynamicLayer", "DynamicSlidingWindowLayer"}


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

    @property
    def state_bytes(self) -> int:
        return 0

    def begin_step(self) -> None:
        self.is_written = False

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
        source: DynamicLayer,
        row: int,
    ) -> None:
        """Copy a text of `end - begin` columns from a row of what a model filled."""
        rest = end - begin - shared
        self.clear(slots, slice(begin))
        for mine, other in ((self.keys, source.keys[row]), (self.values, source.values[row])):
            mine[slots, :, begin : begin + shared] = other[:, :shared]
            mine[slots, :, end - rest : end] = other[:, other.shape[1] - rest :]

    def clear(self, slots: slice, columns: slice) -> None:
        """Forget what a text left. A mask hides it, but not if it is NaN or infinite.

        In a first try the columns get values that no text may see.
        """
        self.keys[slots, :, columns] = 0
        self.values[slots, :, columns] = self.slots.hidden

    def copy_within(self, pairs: list[tuple[slice, torch.Tensor, torch.Tensor]]) -> None:
        """Copy columns from slots to other ones, all at once. pairs: columns, to, source."""
        for mine in (self.keys, self.values):
            read = [mine[source, :, columns] for columns, _, source in pairs]
            for (columns, to, _), copied in zip(pairs, read, strict=True):
                mine[to, :, columns] = copied

    def replace(self, to: slice, source: slice, begin: int, gone: int, end: int) -> None:
        """Copy a text that begins at a column to slots whose text began at the column `gone`."""
        for mine in (self.keys, self.values):
            mine[to, :, begin:end] = mine[source, :, begin:end]
        self.clear(to, slice(gone, begin))

    def move(self, shape: tuple[int, int], used: tuple[slice, slice], at: slice) -> None:
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = make_zeros(old, (shape[0], old.shape[1], shape[1], old.shape[3]))
            new[used[0], :, at] = old[used[0], :, used[1]]
            setattr(self, name, new)


class StateLayer(LinearAttentionLayer):
    """The slots of one layer of linear attention: states of one size, however long the texts are.

    like: a layer that a model has filled.
    """

    column_bytes = 0

    def __init__(self, slots: SlotCache, like: LinearAttentionLayer) -> None:
        super().__init__(like.number_of_states)
        self.slots = slots
        self.dtype, self.device = like.dtype, like.device
        self.conv_kernel_size = dict(like.conv_kernel_size)
        self.has_previous_state = dict(like.has_previous_state)
        self.is_conv_states_initialized = dict(like.is_conv_states_initialized)
        self.is_recurrent_states_initialized = dict(like.is_recurrent_states_initialized)
        self._whole = {key: one.new_zeros((0, *one.shape[1:])) for key, one in _find_states(like)}

    @property
    def state_bytes(self) -> int:
        return sum(one.itemsize * one.shape[1:].numel() for one in self._whole.values())

    def begin_step(self) -> None:
        for (name, index), whole in self._whole.items():
            getattr(self, name)[index] = whole[: self.slots.count]

    def copy_in(
        self,
        slots: slice,
        begin: int,
        end: int,
        shared: int,
        source: LinearAttentionLayer,
        row: int,
    ) -> None:
        for key, state in _find_states(source):
            self._whole[key][slots] = state[row]

    def copy_within(self, pairs: list[tuple[slice, torch.Tensor, torch.Tensor]]) -> None:
        for whole in self._whole.values():
            read = [whole[source] for _, _, source in pairs]
            for (_, to, _), copied in zip(pairs, read, strict=True):
                whole[to] = copied

    def replace(self, to: slice, source: slice, *_: int) -> None:
        for whole in self._whole.values():
            whole[to] = whole[source]

    def move(self, shape: tuple[int, int], used: tuple[slice, slice], at: slice) -> None:
        for key, old in self._whole.items():
            self._whole[key] = make_zeros(old, (shape[0], *old.shape[1:]))
            self._whole[key][used[0]] = old[used[0]]


def _find_states(layer: LinearAttentionLayer) -> list[tuple[tuple[str, int], torch.Tensor]]:
    return [
        ((name, index), state)
        for name in ("conv_states", "recurrent_states")
        for index, state in getattr(layer, name).items()
        if state is not None
    ]


def are_layers_held(cache: Any) -> bool:
    """Tell whether slots hold all kinds of layers that a cache of `generate` has."""
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    kinds = {type(layer).__name__ for layer in getattr(own, "layers", [None])}
    # A dummy stands for a layer that reads the keys and values of another one, or none.
    known = {*_OF_KEYS, "DummyLayer", "LinearAttentionLayer"}
    return kinds <= known and (not kinds or bool(kinds & _OF_KEYS))


def make_cache(like: Any) -> DynamicCache:
    """Return an empty cache for prompts. It forgets no keys and values, as that of a window would.

    like: the cache that `generate` made.
    """
    cache = DynamicCache()
    layers = getattr(like, "layers", [])
    if any(isinstance(layer, LinearAttentionLayer) for layer in layers):
        cache.layers = list(map(_make_layer, layers))
    return cache


def _make_layer(like: Any) -> DynamicLayer | LinearAttentionLayer:
    if isinstance(like, LinearAttentionLayer):
        return LinearAttentionLayer(like.number_of_states)
    return LinearAttentionLayer(0) if isinstance(like, DummyLayer) else DynamicLayer()


def repeat_cache(cache: Any, count: int) -> DynamicCache:
    """Return a cache of so many texts, all with the keys and values of the one text here."""
    repeated = DynamicCache()
    for i, layer in enumerate(cache.layers):
        shape = (count, -1, -1, -1)
        repeated.update(layer.keys.expand(*shape), layer.values.expand(*shape), i)
    return repeated


def make_zeros(like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return zeros of the dtype and on the device of a tensor, on large pages where there are any.

    A step reads all keys and values, more than caches and TLBs hold. Linux is asked for whole pages
    of 2 MiB; where it does not give them, nothing changes.
    """
    made = like.new_empty(shape)
    advise = _find_madvise() if made.device.type == "cpu" else None
    if advise is not None:
        first = -(-made.data_ptr() // _LARGE_PAGE) * _LARGE_PAGE
        length = (made.data_ptr() + made.nbytes - first) // _LARGE_PAGE * _LARGE_PAGE
        if length > 0:
            advise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)
    return made.zero_()


@functools.cache
def _find_madvise() -> Any:
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # of Linux
        return None
    return getattr(ctypes.CDLL(None), "madvise", None)
