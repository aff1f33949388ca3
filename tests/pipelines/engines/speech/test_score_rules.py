"""Scores are changed as transformers changes them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from pipemill.pipelines.engines.speech.score_rules import TimestampRules, simplify
from transformers.generation.logits_process import (
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from tests.support.host_waits import HostWaits

VOCABULARY, END, WITHOUT, PROMPT = 30, 17, 19, [18, 3]
TIMES = range(WITHOUT + 1, VOCABULARY)
# Any order of words and times, the same time twice, later and earlier ones.
WRITTEN = [
    list(tokens) for count in range(5) for tokens in itertools.product((2, 21, 25), repeat=count)
]


@pytest.mark.parametrize("latest", [None, 0, 4])
@pytest.mark.parametrize("detects", [True, False])
def test_times_are_ruled_as_by_transformers(latest, detects):
    config = SimpleNamespace(
        no_timestamps_token_id=WITHOUT,
        eos_token_id=END,
        bos_token_id=None,
        max_initial_timestamp_index=latest,
        _detect_timestamp_from_logprob=detects,
    )
    usual = WhisperTimeStampLogitsProcessor(config, begin_index=len(PROMPT))
    rules = simplify(usual)
    assert isinstance(rules, TimestampRules)
    random = torch.Generator().manual_seed(0)
    changed = 0
    for length, several in itertools.groupby(WRITTEN, len):
        texts = [PROMPT + tokens for tokens in several]
        for likely in (0, 3):  # of times
            scores = torch.randn((len(texts), VOCABULARY), generator=random)
            scores[:, TIMES.start :] += likely
            expected = usual(torch.tensor(texts), scores)
            before = scores.clone()
            with HostWaits() as waits:
                found = rules(texts, scores)
            assert waits.found == [], length
            assert torch.equal(found, expected)
            assert torch.equal(scores, before)
            changed += int((found != scores).sum())
    assert changed > 1000


# An empty list is what most guides to fine-tuning Whisper set.
@pytest.mark.parametrize("tokens", [[1, 5, VOCABULARY + 3], [VOCABULARY], []])
def test_only_tokens_of_the_vocabulary_are_suppressed(tokens):
    usual = SuppressTokensLogitsProcessor(tokens)
    scores = torch.randn(2, VOCABULARY)
    found = simplify(usual)(torch.zeros((2, 1)), scores)
    assert torch.equal(found, usual(torch.zeros((2, 1)), scores))
