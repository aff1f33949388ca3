"""Change the scores of the next tokens as transformers' processors do, sooner.

They look for what they suppress in the whole vocabulary, and ask the device what is written; here
that is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pipemill.actors.device_transfer import to_device

from ..generation.hypotheses import Change

_NEVER = -float("inf")
Interval = tuple[int, int]  # the first token, and the one behind the last


def simplify(processor: Any) -> Change:
    """Return what does the same as one of transformers' `LogitsProcessor`."""
    kind = type(processor).__name__
    if kind == "SuppressTokensLogitsProcessor":
        tokens = processor.suppress_tokens.tolist()
        return lambda ids, scores: _suppress(scores, tokens)
    if kind == "SuppressTokensAtBeginLogitsProcessor":
        begin = processor.begin_index
        return lambda ids, scores: processor(ids, scores) if ids.shape[1] == begin else scores
    if kind == "WhisperTimeStampLogitsProcessor":
        return TimestampRules(processor)
    change: Change = processor
    return change


def _suppress(scores: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    known = [token for token in tokens if 0 <= token < scores.shape[1]]
    return scores.index_fill(1, to_device(known, scores.device), _NEVER)


class TimestampRules:
    """Does what a `WhisperTimeStampLogitsProcessor` does; gets texts as lists, not as a tensor."""

    reads_texts = True

    def __init__(self, processor: Any) -> None:
        self.processor, self.first = processor, int(processor.timestamp_begin)

    def __call__(self, texts: Any, scores: torch.Tensor) -> torch.Tensor:
        forbidden = [self._find_forbidden(text, scores.shape[1]) for text in texts]
        starts, ends = to_device(np.array(forbidden)[..., None], scores.device).unbind(2)
        tokens = torch.arange(scores.shape[1], device=scores.device)
        scores = scores.masked_fill(((tokens >= starts) & (tokens < ends)).any(1), _NEVER)
        if not self.processor._detect_timestamp_from_logprob:
            return scores
        # A time that is likelier than any word comes next, whichever time that is.
        shares = torch.log_softmax(scores.float(), dim=-1)
        is_time = shares[:, self.first :].logsumexp(-1) > shares[:, : self.first].max(-1).values
        return scores.masked_fill((tokens < self.first) & is_time[:, None], _NEVER)

    def _find_forbidden(self, text: list[int], vocabulary: int) -> list[Interval]:
        """Return the tokens that must not follow: always as many intervals, some of them empty."""
        rules, first = self.processor, self.first
        written = text[rules.begin_index :]
        after_time = bool(written) and written[-1] >= first
        after_two = len(written) < 2 or written[-2] >= first
        # Times come in pairs, but for the last one.
        pair = (0, 0)
        if after_time:
            pair = (first, vocabulary) if after_two else (0, int(rules.eos_token_id))
        # They do not decrease, and only the two of a pair may be equal.
        times = [token for token in written if token >= first]
        least = times[-1] + (not (after_time and not after_two)) if times else first
        words = late = (0, 0)
        if not written:
            words = (0, first)
            if rules.max_initial_timestamp_index is not None:
                late = (first + rules.max_initial_timestamp_index + 1, vocabulary)
        without = int(rules.no_timestamps_token_id)
        return [pair, (first, least), words, late, (without, without + 1)]
