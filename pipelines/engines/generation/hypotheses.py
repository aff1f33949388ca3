"""Search for a text, as transformers' greedy and beam search do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pipemill.actors.device_transfer import to_device

# A token that may follow: the score of the whole text with it, the text, and the token.
Candidate = tuple[float, int, int]
# What transformers adds to the score of a text that must not be chosen.
_NEVER = -1e9
# From the texts' tokens, shape (texts, tokens), and the scores of the next ones, to other scores.
# One with the attribute `reads_texts` gets the tokens as lists.
Change = Callable[[Any, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class SearchRules:
    """How texts are searched, as `generate` prepared it.

    Attributes:
        processors: change the scores of the next tokens.
        ends: the tokens that end a text.
        most: the most tokens of a text without its prompt.
        beams: how many texts are kept; 1 for greedy search.
        length_penalty: the exponent of a text's length, by which its score is divided.
        early_stopping: see `GenerationConfig`.
    """

    processors: Sequence[Change] = ()
    ends: frozenset[int]
    most: int
    beams: int
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    @property
    def candidates(self) -> int:
        """Return how many tokens are looked at in each step.

        As many as may end texts, and as many again that go on.
        """
        return 1 if self.beams == 1 else max(2, 1 + len(self.ends)) * self.beams


class Hypotheses:
    """The texts that a beam search keeps after one prompt, the best first.

    Attributes:
        texts: the tokens of those that go on, with the prompt; always as many as there are beams.
        scores: their log probabilities.
        is_done: whether the best texts are known.
    """

    def __init__(self, prompt: list[int], rules: SearchRules) -> None:
        self.rules, self.prompt_length = rules, len(prompt)
        self.texts = [prompt] * rules.beams
        # All begin alike: only the first one counts.
        self.scores = [0.0] + [_NEVER] * (rules.beams - 1)
        self.is_done = False
        # Those that ended. Places that no text took yet hold the prompt.
        self._ended = [(_NEVER, prompt)] * rules.beams

    @property
    def best(self) -> list[int]:
        """Return the tokens of the best text that ended, with the prompt."""
        return self._ended[0][1]

    def best_of(self, count: int) -> list[list[int]]:
        """Return the tokens of the best texts that ended, with the prompt."""
        return [text for _, text in self._ended[:count]]

    def adjust(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the scores of the tokens that may follow each text, shape (texts, vocabulary).

        logits: of these, as the model gives them, float32; one row for texts that are equal.
        """
        logits = logits.expand(len(self.texts), -1)
        scores = logits if self.rules.beams == 1 else torch.log_softmax(logits, dim=-1)
        ids = to_device(self.texts, logits.device)
        for change in self.rules.processors:
            scores = change(self.texts if getattr(change, "reads_texts", False) else ids, scores)
        if self.rules.beams > 1:
            own = np.array(self.scores, np.float32)
            scores = scores + to_device(own, scores.device)[:, None]
        return scores

    def extend(
        self,
        candidates: list[Candidate],
        ends_with: Callable[[list[list[int]]], list[bool]] | None = None,
    ) -> list[int]:
        """Add a token to each text. Return which text each of those that go on continues.

        Args:
            candidates: the best ones, `rules.candidates` of them, the best first.
            ends_with: tells which texts end for another reason than their last token or length.
        """
        length = len(self.texts[0]) + 1 - self.prompt_length
        is_last = length >= self.rules.most
        texts = [[*self.texts[text], token] for _, text, token in candidates]
        ends = [is_last or token in self.rules.ends for _, _, token in candidates]
        if ends_with is not None and not is_last:
            ends = [one or other for one, other in zip(ends, ends_with(texts), strict=True)]
        beams, penalty = self.rules.beams, self.rules.length_penalty
        if beams == 1:
            self.texts = texts
            if ends[0]:
                self._ended, self.is_done = [(candidates[0][0], texts[0])], True
            return [0]
        found = [
            (score / length**penalty, text)
            for (score, _, _), text, ended in zip(candidates[:beams], texts, ends, strict=False)
            if ended
        ]
        self._ended = sorted([*self._ended, *found], key=lambda one: -one[0])[:beams]
        # Texts that ended go on only where there are too few others.
        scores = [one[0] + _NEVER * ended for one, ended in zip(candidates, ends, strict=True)]
        on = sorted(range(len(scores)), key=lambda i: -scores[i])[:beams]
        self.texts, self.scores = [texts[i] for i in on], [scores[i] for i in on]
        self.is_done = all(ends) or not self._may_improve(length)
        return [candidates[i][1] for i in on]

    def _may_improve(self, length: int) -> bool:
        """Tell whether a text that goes on may become better than those that ended."""
        rules, (worst, text) = self.rules, self._ended[-1]
        if rules.early_stopping is True and len(text) > self.prompt_length:
            return False
        if rules.early_stopping == "never" and rules.length_penalty > 0:
            length = rules.most
        return self.scores[0] / length**rules.length_penalty > worst
