"""Slots hold the keys and values of their texts, however texts come and go."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
