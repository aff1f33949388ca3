"""Whether what a model returns for several inputs is what it returns for one, but for rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pipemill.pipelines.engines.stacking import ROUNDED, ROUNDED_ON_GPU, answers_equal

LEAST = torch.finfo(torch.float32).min


def make_states(kind):
    """Return numbers as models return them, of shape (tokens, channels)."""
    states = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    if kind == "outlier":
        states[:, 7] = 300
    elif kind == "mask":
        states[20:] = LEAST
    elif kind == "infinite":
        states[20:] = -np.inf
    elif kind == "sparse":
        states = np.where(states > 2.5, states, states / 1e4).astype(np.float32)
    return torch.from_numpy(states)


KINDS = ["usual", "outlier", "mask", "infinite", "sparse"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("close", "noise"), [(ROUNDED, 0.01), (ROUNDED_ON_GPU, 0.001)])
def test_rounding_is_no_difference(kind, close, noise):
    states = make_states(kind)
    rounded = states * (1 + noise * torch.sin(torch.arange(64.0)))
    rounded = torch.where(states < -1e30, states, rounded)
    assert answers_equal({"logits": rounded}, {"logits": states}, close)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("close", [ROUNDED, ROUNDED_ON_GPU])
def test_the_numbers_of_another_row_are_one(kind, close):
    states = make_states(kind)
    others = states.clone()
    others[:20] = others[:20].roll(1, 0)
    assert not answers_equal({"logits": others}, {"logits": states}, close)


def test_a_mask_of_other_numbers_is_a_difference():
    states, others = make_states("mask"), make_states("mask")
    others[20] = 1
    assert not answers_equal(others, states, ROUNDED)
    assert not answers_equal(states, others, ROUNDED)
