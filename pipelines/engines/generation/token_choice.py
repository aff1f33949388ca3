"""Choose the next token of each text, and see whether it ends there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pipemill.actors.device_transfer import to_device

from ..base import Values
from .hypotheses import Hypotheses, SearchRules

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
        search: how texts are searched, if with beams.
        count: how many of the texts that a search finds are wanted.
        fill: the token behind the shorter ones of these.
    """

    processors: Any
    ends: frozenset[int]
    criteria: list[Any]
    samples: bool
    most: int
    search: SearchRules | None
    count: int
    fill: int

    @classmethod
    def of(cls, processors: Any, criteria: Any, config: Any, written: int) -> Rules:
        """Return the rules of texts that begin with `written` tokens."""
        ends = _to_list(getattr(config, "_eos_token_tensor", None))
        pads = _to_list(getattr(config, "_pad_token_tensor", None))
        most, search = config.max_length - written, None
        if (config.num_beams or 1) > 1:
            search = SearchRules(
                ends=frozenset(ends),
                most=most,
                beams=config.num_beams,
                length_penalty=config.length_penalty,
                early_stopping=config.early_stopping,
            )
        return cls(
            processors=processors,
            ends=frozenset(ends),
            criteria=[one for one in criteria if type(one).__name__ not in _FOLLOWED],
            samples=bool(config.do_sample),
            most=most,
            search=search,
            count=config.num_return_sequences or 1,
            # As transformers does it: a padding token of 0 is none.
            fill=((pads and pads[0]) or ends[0]) if ends else -1,
        )

    def ends_with(self, texts: list[list[int]]) -> list[bool]:
        """Tell which texts, of equal length, one of the criteria ends."""
        if not self.criteria:
            return [False] * len(texts)
        ids = torch.tensor(texts)  # on the CPU: a GPU would be waited for
        ended = torch.stack([criterion(ids, None) for criterion in self.criteria])
        return ended.any(0).tolist()


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
        load: makes the inputs, of a prompt that is more than its tokens: `inputs` has only these.
        beams: how many texts are searched at a time, of which the best is the one wanted.
        scale: of its positions, where those of long texts are others.
        adapts: whether its prompt is more than tokens, where adapters depend on that.
        shift: how far its positions are from the columns of its slot, on each axis that they have.
        types: what a step's token types are, by their name.
        beginning: the first tokens of its prompt, if others of its split begin with them, too.
        ids: its tokens so far; a decoder's begin with the prompt. With beams: only those.
        search: the texts that beams found so far.
        output: what `_forward` returned for it, or why it can't be written.
    """

    inputs: Values
    keywords: Values
    settings: str
    seed: int
    needs_length: bool = False
    begins_alone: bool = False
    load: Callable[[], Values] | None = None
    shift: tuple[int, ...] = (0,)
    types: dict[str, int] = field(default_factory=dict)
    beams: int = 1
    scale: int = 0
    adapts: bool = False
    beginning: tuple[int, ...] = ()
    ids: list[int] = field(default_factory=list)
    rules: Rules | None = None
    search: Hypotheses | None = None
    random: torch.Generator | None = None
    new: int = 0
    output: Values | Exception | None = None
    is_done: bool = False

    @property
    def kind(self) -> tuple[int, int, bool]:
        """Return what is equal of texts that run at once."""
        return self.beams, self.scale, self.adapts

    @property
    def texts(self) -> list[list[int]]:
        """Return the tokens of the texts that go on."""
        return self.search.texts if self.search else [self.ids]

    @property
    def found(self) -> list[list[int]]:
        """Return the tokens of the texts that are wanted, of equal length."""
        assert self.rules is not None
        texts = self.search.best_of(self.rules.count) if self.search else [self.ids]
        longest = max(map(len, texts))
        return [text + [self.rules.fill] * (longest - len(text)) for text in texts]

    def begin(self, rules: Rules) -> None:
        """Take the rules, when the prompt's tokens are there."""
        self.rules = rules
        self.search = Hypotheses(self.ids, rules.search) if rules.search else None

    def restart(self) -> None:
        self.ids, self.rules, self.search, self.random, self.new = [], None, None, None, 0


def append_tokens(sequences: list[Sequence], logits: torch.Tensor) -> None:
    """Append a token to each text. logits: of the next tokens, shape (texts, vocabulary)."""
    scores = logits.to(torch.float32, copy=True)
    process(scores, sequences)
    tokens = scores.argmax(dim=-1)
    for i, one in enumerate(sequences):
        if one.rules is not None and one.rules.samples:
            shares = torch.nn.functional.softmax(scores[i], dim=-1)
            one.random = one.random or torch.Generator(scores.device).manual_seed(one.seed)
            tokens[i : i + 1] = torch.multinomial(shares, 1, generator=one.random)
    # The host waits for the device only here.
    for one, token in zip(sequences, tokens.tolist(), strict=True):
        _append(one, token)


def process(scores: torch.Tensor, sequences: list[Sequence]) -> None:
    """Change the scores of the next tokens by the rules of each text.

    scores: a row for each of the texts of all sequences.
    """
    groups: dict[tuple[Rules, int], list[int]] = defaultdict(list)
    texts = [(one.rules, text) for one in sequences for text in one.texts]
    for i, (rules, text) in enumerate(texts):
        if rules is not None and len(rules.processors):
            # Of equal length: what looks at a text's tokens sees no padding.
            groups[rules, len(text)].append(i)
    for (rules, _), rows in groups.items():
        ids = to_device([texts[i][1] for i in rows], scores.device)
        index = to_device(rows, scores.device)
        scores[index] = rules.processors(ids, scores[index])


def _append(one: Sequence, token: int) -> None:
    assert one.rules is not None
    one.ids.append(token)
    one.new += 1
    one.is_done = token in one.rules.ends or one.new >= one.rules.most
    one.is_done = one.is_done or one.rules.ends_with([one.ids])[0]


def _to_list(tokens: torch.Tensor | None) -> list[int]:
    return [] if tokens is None else tokens.flatten().tolist()
