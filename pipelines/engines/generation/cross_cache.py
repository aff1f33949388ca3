"""Keep the keys and values of what an encoder read for each text that is being written."""

from __future__ import annotations

import copy

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class CrossCache:
    """The texts' keys and values of all layers, in the order of the texts' slots.

    Attributes:
        lengths: the tokens that were read for each text.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        # Of shape (texts, heads, tokens, width), with room for more texts and tokens.
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        # To be copied: to make one of a tensor, transformers waits for a GPU.
        self._layer = DynamicLayer()
        self._mask = torch.zeros((0, 0), dtype=torch.long)
        self._has_holes = False

    @property
    def used(self) -> tuple[slice, slice]:
        """Return which texts and tokens are in use."""
        return slice(len(self.lengths)), slice(max(self.lengths, default=0))

    def mask(self) -> torch.Tensor:
        """Return which tokens were read for each text, shape (texts, tokens)."""
        return self._mask[self.used]

    @property
    def hides(self) -> bool:
        """Tell whether `mask` hides a token from any text."""
        return self._has_holes or min(self.lengths, default=0) < max(self.lengths, default=0)

    def for_step(self) -> DynamicCache:
        """Return the cache with which a model computes the next step."""
        texts, tokens = self.used
        cache = DynamicCache()
        for keys, values in self._layers:
            layer = copy.copy(self._layer)
            layer.keys, layer.values = keys[texts, :, tokens], values[texts, :, tokens]
            cache.layers.append(layer)
        return cache

    def add(self, filled: Cache, mask: torch.Tensor) -> None:
        """Copy texts from another cache, behind the others. mask: as `mask` returns it, of them."""
        columns = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        seen = mask != 0
        lengths, counts = torch.stack([(seen * columns).amax(1), seen.sum(1)]).tolist()
        self._has_holes = self._has_holes or lengths != counts
        first, count, longest = len(self.lengths), len(lengths), max(lengths)
        if not self._layers:
            self._mask = mask[:0, :0].clone()
            self._layers = [
                (layer.keys[:0, :, :0], layer.values[:0, :, :0]) for layer in filled.layers
            ]
            self._layer.lazy_initialization(*self._layers[0])
        self._reserve(first + count, longest)
        texts, tokens = slice(first, first + count), slice(longest)
        self._mask[texts] = 0
        self._mask[texts, tokens] = mask[:, tokens]
        for (keys, values), layer in zip(self._layers, filled.layers, strict=True):
            for mine, other in ((keys, layer.keys), (values, layer.values)):
                mine[texts, :, tokens] = other[:, :, tokens]
                # A mask hides what other texts left, but not if it is NaN or infinite.
                mine[texts, :, longest:] = 0
        self.lengths += lengths

    def remove(self, text: int) -> None:
        """Let the last text take a text's place."""
        last, length = len(self.lengths) - 1, self.lengths[-1]
        if text != last:
            self._mask[text] = self._mask[last]
            for both in self._layers:
                for one in both:
                    one[text, :, :length] = one[last, :, :length]
                    one[text, :, length : self.lengths[text]] = 0
            self.lengths[text] = length
        self.lengths.pop()

    def _reserve(self, texts: int, tokens: int) -> None:
        """Make room for so many texts and tokens."""
        have = self._mask.shape
        if texts <= have[0] and tokens <= have[1]:
            return
        room = (texts if texts <= have[0] else max(texts, have[0] * 3 // 2), max(tokens, have[1]))
        used = self.used

        def move(old: torch.Tensor) -> torch.Tensor:
            new = old.new_zeros((room[0], old.shape[1], room[1], old.shape[3]))
            new[used[0], :, used[1]] = old[used[0], :, used[1]]
            return new

        mask = self._mask.new_zeros(room)
        mask[used] = self._mask[used]
        self._mask = mask
        # One layer after the other: the old one is freed before the next is copied.
        for i, (keys, values) in enumerate(self._layers):
            self._layers[i] = move(keys), move(values)
