"""Packed or padded: the answers are those of each sequence alone, whatever shares its pass."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors import packed
from pipemill.pipelines.encoder import Encoder

from tests.pipelines import encoders
from tests.pipelines.encoders import LIMIT

TOKENS = ("Model", "ForTokenClassification", "ForMaskedLM")
HEADS = (*TOKENS, "ForSequenceClassification")
PACKED = [
    (kind, head)
    for kind in ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra", "DistilBert")
    for head in HEADS
]
PACKED += [("ModernBert", head) for head in HEADS] + [("Albert", head) for head in TOKENS]
PACKED += [("Qwen2", "Model"), ("Qwen2", "ForTokenClassification")]
PADDED = [
    ("MPNet", "Model", {}),
    ("MPNet", "ForSequenceClassification", {}),
    ("DebertaV2", "Model", {}),
    ("DebertaV2", "ForSequenceClassification", {}),
    ("T5", "ForSequenceClassification", {}),
    ("Bart", "ForSequenceClassification", {}),
    ("ModernBert", "ForSequenceClassification", {"classifier_pooling": "mean"}),
    ("Qwen2", "ForSequenceClassification", {}),
    ("Albert", "ForSequenceClassification", {}),
]
MIXES = (
    st.lists(st.integers(1, LIMIT), min_size=1, max_size=8)
    | st.lists(st.sampled_from([1, 5, 17]), min_size=5, max_size=12)
    | st.lists(st.integers(1, 6), max_size=8).map(lambda short: [LIMIT, *short, 1])
)
few = settings(max_examples=6, deadline=None, derandomize=True)


def farthest(got, expected) -> float:
    """The largest difference, as a share of the largest answer."""
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def check(encoder, model, lengths, close=1e-5):
    made = encoders.sequences(encoder.pipeline, lengths)
    got, sizes = encoder(encoders.chunks(made))
    expected = encoders.one_by_one(model, made, encoder.whole)
    assert sizes.tolist() == lengths
    assert farthest(got.float().numpy(), expected) < close
    if encoder.whole and len(lengths) > 1:
        assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max(), "rows differ"


@pytest.mark.parametrize(("kind", "head"), PACKED)
def test_packed_answers_are_those_of_each_sequence_alone(kind, head):
    encoder = encoders.encoder(encoders.loaded(kind, head))
    usual = encoders.loaded(kind, head).model
    assert encoder.packed

    @few
    @given(MIXES)
    def holds(lengths):
        check(encoder, usual, lengths)

    holds()


@pytest.mark.parametrize(("kind", "head", "other"), PADDED)
def test_what_does_not_pack_is_padded_with_its_usual_attention(kind, head, other, caplog):
    import transformers

    pipeline = encoders.loaded(kind, head, **other)
    before = pipeline.model.config._attn_implementation
    encoder = encoders.encoder(pipeline)
    assert not encoder.packed
    configs = [m.config for m in pipeline.model.modules() if hasattr(m, "_attn_implementation")]
    configs.append(pipeline.model.config)
    assert {config._attn_implementation for config in configs} == {before}
    usual = encoders.loaded(kind, head, **other).model
    transformers.utils.logging.enable_propagation()
    caplog.clear()
    for lengths in ([5, 5, 1, 40], [LIMIT, 3], [2], [1, 1, 2]):
        check(encoder, usual, lengths)
    assert not caplog.records, "nothing is said of every micro-batch"
    transformers.utils.logging.disable_propagation()
