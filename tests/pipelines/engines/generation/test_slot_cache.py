"""Slots hold the keys and values of their texts, however texts come and go."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.pipelines.engines.generation.cross_cache import CrossCache
from pipemill.pipelines.engines.generation.slot_cache import SlotCache
from transformers.cache_utils import DynamicCache

HEADS, WIDTH, LAYERS = 2, 3, 2


def filled(texts: list[torch.Tensor], shared: int) -> DynamicCache:
    """A cache as a model fills it: what the texts share first, each one's rest at the end."""
    rest = max(text.shape[2] for text in texts) - shared
    cache = DynamicCache()
    for layer in range(LAYERS):
        rows = []
        for text in texts:
            own = text[layer, :, shared:]
            gap = torch.full((HEADS, rest - own.shape[1], WIDTH), torch.nan)
            rows.append(torch.cat([text[layer, :, :shared], gap, own], dim=1))
        keys = torch.stack(rows)
        cache.update(keys, -keys, layer)
    return cache


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_each_slot_holds_its_text(data):
    slots, texts = SlotCache(torch.device("cpu")), []
    for _ in range(data.draw(st.integers(1, 8))):
        lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
        new = [torch.randn(LAYERS, HEADS, length, WIDTH) for length in lengths]
        shared = data.draw(st.integers(0, min(lengths)))
        for text in new[1:]:
            text[:, :, :shared] = new[0][:, :, :shared]
        slots.add(filled(new, shared), lengths, shared, None)
        texts += new
        for _ in range(data.draw(st.integers(0, 50))):
            written = torch.randn(LAYERS, HEADS, len(texts), WIDTH)
            cache = slots.for_step()
            assert cache.get_seq_length() == slots.width == max(t.shape[2] for t in texts)
            for layer in range(LAYERS):
                one = written[layer].transpose(0, 1)[:, :, None]
                keys, values = cache.update(one, -one, layer)
                assert torch.equal(keys, -values)
                mask = slots.mask()
                for slot, text in enumerate(texts):
                    held = keys[slot][:, mask[slot].bool()]
                    assert torch.equal(held[:, :-1], text[layer])
                    assert torch.equal(held[:, -1:], one[slot])
            slots.advance()
            texts = [
                torch.cat([text, written[:, :, slot, None]], 2) for slot, text in enumerate(texts)
            ]
        for slot in sorted(data.draw(st.sets(st.integers(0, len(texts) - 1))), reverse=True):
            slots.remove(slot)
            texts[slot] = texts[-1]
            texts.pop()
        assert slots.lengths == [text.shape[2] for text in texts]
        if not texts:
            return


def test_a_first_try_that_lost_its_slots_hides_columns_again():
    """As when memory ran out: a model that does not hear a mask would pass for one that does."""
    slots = SlotCache(torch.device("cpu"))
    slots.spoil(True)
    slots.clear()
    slots.add(filled([torch.randn(LAYERS, HEADS, 5, WIDTH)] * 2, 0), [5, 5], 0, None)
    assert slots.hides


def test_what_the_encoder_read_of_a_text_that_ended_is_forgotten():
    """A mask hides it from others that take its place, but not if it is NaN."""

    def fill(*lengths):
        cache, mask = DynamicCache(), torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        states = torch.ones(len(lengths), 2, max(lengths), 3)
        for row, length in enumerate(lengths):
            mask[row, :length] = 1
        cache.update(states, states.clone(), 0)
        return cache, mask

    for first in (0, 2):  # of which the last one takes the place, or none
        cross = CrossCache()
        cross.add(*fill(5, 2, 4))
        for one in cross._layers[0]:
            one[first] = float("nan")
        cross.remove(first)
        cross.add(*fill(1))
        cross.add(*fill(5))
        layer = cross.for_step().layers[0]
        assert layer.keys.shape == (4, 2, 5, 3)
        assert layer.keys.isfinite().all()
        assert layer.values.isfinite().all()
