"""Probabilities of logits, in numpy."""

from __future__ import annotations

import numpy as np


def compute_softmax(logits: np.ndarray) -> np.ndarray:
    """Compute the softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def compute_sigmoid(logits: np.ndarray) -> np.ndarray:
    """Compute the sigmoid of each logit."""
    return 1.0 / (1.0 + np.exp(-logits))
