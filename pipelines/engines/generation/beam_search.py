"""Add a token to the texts of each beam search, and say which slots change places for that."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from pipemill.actors.device_transfer import to_device

from .slot_cache import Move
from .token_choice import Sequence, process


def extend_beams(sequences: list[Sequence], logits: torch.Tensor) -> list[list[Move]]:
    """Add a token to each text of all searches. Return the moves within the slots of each.

    logits: of the next tokens, shape (texts of all sequences, vocabulary).
    """
    scores = torch.log_softmax(logits.to(torch.float32), dim=-1)
    process(scores, sequences)
    searches = [one.search for one in sequences if one.search is not None]
    before = [score for search in searches for score in search.scores]
    scores += to_device(np.array(before, np.float32), scores.device)[:, None]
    width = scores.shape[1]
    scores = scores.view(len(searches), -1)
    best = scores.topk(max(search.rules.candidates for search in searches))
    # At once: the host waits for the device only here. A double holds any index.
    values, indices = torch.stack([best.values.double(), best.indices.double()]).tolist()
    moves = []
    for one, search, *found in zip(sequences, searches, values, indices, strict=True):
        assert one.rules is not None
        texts, wanted = search.texts, search.rules.candidates
        parents = search.extend(
            [(value, *divmod(int(index), width)) for value, index in zip(*found, strict=True)][
                :wanted
            ],
            one.rules.ends_with,
        )
        one.is_done = search.is_done
        start = search.prompt_length
        each = (
            Move(to=i, source=j, columns=_count_differing(texts[i], texts[j], start))
            for i, j in enumerate(parents)
        )
        moves.append([] if one.is_done else [move for move in each if move.columns])
    return moves


def _count_differing(one: list[int], other: list[int], start: int) -> int:
    """Return how many of the last tokens hold all in which two texts differ, from `start` on."""
    if one is other:
        return 0
    pairs = zip(one[start:], other[start:], strict=True)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return len(one) - start - same
