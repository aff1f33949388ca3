"""Choose the next token of each text, and see whether it ends there."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch

from ..base import Values

# Stopping criteria that `Rules` follows itself.
_FOLLOWED = ("MaxLengthCriteria", "EosTokenCriteria")


@dataclass(eq=False)
class Rules:
    """How a text is written, as transformers prepared it for the text's settings.

    Attributes:
        processors: change the scores of the next token, a `LogitsProcessorList`.
        ends: tokens that end a text.
        criteria: other functions that tell whether a text ends.
        samples: whether a token is drawn by chance.
        most: the most new tokens.
    """

    processors: Any
    ends: frozenset[int]
    criteria: list[Any]
    samples: bool
    most: int

    @classmethod
    def of(cls, processors: Any, criteria: Any, config: Any, written: int) -> Rules:
        """Return the rules of texts that begin with `written` tokens."""
        ends = getattr(config, "_eos_token_tensor", None)
        return cls(
            processors=processors,
            ends=frozenset([] if ends is None else ends.flatten().tolist()),
            criteria=[one for one in criteria if type(one).__name__ not in _FOLLOWED],
            samples=bool(config.do_sample),
            most=config.max_length - written,
        )


@dataclass(eq=False)
class Sequence:
    """A text that is written, or waits for its turn.

    Attributes:
        inputs: what `_forward` takes for it alone.
        keywords: those of `_forward`.
        settings: a text that is equal where the keywords are.
        seed: of its random numbers.
        needs_length: whether only prompts of its length may begin together with it.
        begins_alone: whether no other prompt may.
        beginning: the first tokens of its prompt, if others of its split begin with them, too.
        ids: its tokens so far; a decoder's begin with the prompt.
        output: what `_forward` returned for it, or why it can't be written.
    """

    inputs: Values
    keywords: Values
    settings: str
    seed: int
    needs_length: bool = False
    begins_alone: bool = False
    beginning: tuple[int, ...] = ()
    ids: list[int] = field(default_factory=list)
    rules: Rules | None = None
    random: torch.Generator | None = None
    new: int = 0
    output: Values | Exception | None = None
    is_done: bool = False

    def restart(self) -> None:
        self.ids, self.rules, self.random, self.new = [], None, None, 0


def append_tokens(sequences: list[Sequence], logits: torch.Tensor) -> None:
    """Append a token to each text. logits: of the next tokens, shape (texts, vocabulary)."""
    scores = logits.to(torch.float32, copy=True)
    groups: dict[tuple[Rules, int], list[int]] = defaultdict(list)
    for i, one in enumerate(sequences):
        assert one.rules is not None
        if len(one.rules.processors):
            # Of equal length: what looks at a text's tokens sees no padding.
            groups[one.rules, len(one.ids)].append(i)
    for (rules, _), rows in groups.items():
        ids = torch.tensor([sequences[i].ids for i in rows], device=scores.device)
        index = torch.tensor(rows, device=scores.device)
        scores[index] = rules.processors(ids, scores[index])
    tokens = scores.argmax(dim=-1).tolist()
    for i, one in enumerate(sequences):
        if one.rules is not None and one.rules.samples:
            shares = torch.nn.functional.softmax(scores[i : i + 1], dim=-1)
            one.random = one.random or torch.Generator(scores.device).manual_seed(one.seed)
            tokens[i] = int(torch.multinomial(shares, 1, generator=one.random))
    for one, token in zip(sequences, tokens, strict=True):
        _append(one, token, scores.device)


def _append(one: Sequence, token: int, device: torch.device) -> None:
    assert one.rules is not None
    one.ids.append(token)
    one.new += 1
    one.is_done = token in one.rules.ends or one.new >= one.rules.most
    if one.rules.criteria and not one.is_done:
        ids = torch.tensor([one.ids], device=device)
        one.is_done = any(bool(ends(ids, None).all()) for ends in one.rules.criteria)
