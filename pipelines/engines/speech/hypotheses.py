"""Search for the text of a window of audio, as transformers' greedy and beam search do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

# A token that may follow: the score of the whole text with it, the text, and the token.
Candidate = tuple[float, int, int]
# From the texts' tokens, shape (texts, tokens), and the scores of the next ones, to other scores.
Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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

    processors: list[Change]
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
    """The texts of one window, the best first.

    Attributes:
        texts: the tokens of those that go on, with the prompt.
        scores: their log probabilities.
        is_done: whether the best text is known.
    """

    def __init__(self, prompt: list[int], rules: SearchRules) -> None:
        self.rules, self.prompt_length = rules, len(prompt)
        self.texts = [prompt]
        self.scores = [0.0]
        self.is_done = False
        self._ended: list[tuple[float, list[int]]] = []

    @property
    def best(self) -> list[int]:
        """Return the tokens of the best text that ended, with the prompt."""
        return self._ended[0][1]

    def adjust(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the scores of the tokens that may follow each text, shape (texts, vocabulary).

        logits: of these, as the model gives them, float32.
        """
        scores = logits if self.rules.beams == 1 else torch.log_softmax(logits, dim=-1)
        ids = torch.tensor(self.texts, device=logits.device)
        for change in self.rules.processors:
            scores = change(ids, scores)
        if self.rules.beams > 1:
            scores = scores + torch.tensor(self.scores, device=scores.device)[:, None]
        return scores

    def extend(self, candidates: list[Candidate]) -> list[int]:
        """Add a token to each text. Return which text each of those that go on continues.

        candidates: the best ones, `rules.candidates` of them, the best first.
        """
        length = len(self.texts[0]) + 1 - self.prompt_length
        is_last = length >= self.rules.most
        ends = [is_last or token in self.rules.ends for _, _, token in candidates]
        if self.rules.beams == 1:
            self.texts = [[*self.texts[0], candidates[0][2]]]
            if ends[0]:
                self._ended, self.is_done = [(candidates[0][0], self.texts[0])], True
            return [0]
        beams, penalty = self.rules.beams, self.rules.length_penalty
        for (score, text, token), ended in zip(candidates[:beams], ends, strict=False):
            if ended:
                self._ended.append((score / length**penalty, [*self.texts[text], token]))
        self._ended.sort(key=lambda one: -one[0])
        del self._ended[beams:]
        on = [one for one, ended in zip(candidates, ends, strict=True) if not ended][:beams]
        self.is_done = not on or not self._may_improve(on[0][0], length)
        if on:
            self.texts = [[*self.texts[text], token] for _, text, token in on]
            self.scores = [score for score, _, _ in on]
        return [text for _, text, _ in on]

    def _may_improve(self, score: float, length: int) -> bool:
        """Tell whether a text that goes on may become better than those that ended."""
        rules = self.rules
        if len(self._ended) < rules.beams:
            return True
        if rules.early_stopping is True:
            return False
        if rules.early_stopping == "never" and rules.length_penalty > 0:
            length = rules.most
        return score / length**rules.length_penalty > self._ended[-1][0]


def simplify(processor: Change) -> Change:
    """Return what does the same as one of transformers' `LogitsProcessor`, sooner if possible.

    Those that suppress tokens look for them in the whole vocabulary in each step.
    """
    kind = type(processor).__name__
    if kind == "SuppressTokensLogitsProcessor":
        tokens = processor.suppress_tokens  # type: ignore[attr-defined]
        return lambda ids, scores: _suppress(scores, tokens)
    if kind == "SuppressTokensAtBeginLogitsProcessor":
        begin = processor.begin_index  # type: ignore[attr-defined]
        return lambda ids, scores: processor(ids, scores) if ids.shape[1] == begin else scores
    return processor


def _suppress(scores: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    known = tokens[(tokens >= 0) & (tokens < scores.shape[1])]
    return scores.index_fill(1, known, -float("inf"))
