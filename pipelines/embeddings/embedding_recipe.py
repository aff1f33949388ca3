"""The recipe of feature-extraction: how token vectors become the vector of a text.

It holds names and numbers only, so the driver can read it without torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .static_folder import StaticFolder


@dataclass(frozen=True)
class Dense:
    """A linear layer with an activation; `folder` holds its weights."""

    folder: str
    width: int
    activation: str
    residual: bool = False

    def __str__(self) -> str:
        function = "" if self.activation == "Identity" else f", {self.activation}"
        return f"Dense to {self.width}{function}"


@dataclass(frozen=True)
class LayerNorm:
    """A layer norm; `folder` holds its weights."""

    folder: str

    def __str__(self) -> str:
        return "LayerNorm"


@dataclass(frozen=True)
class Normalize:
    """A step that scales a vector to length 1."""

    def __str__(self) -> str:
        return "normalized"


@dataclass(frozen=True)
class Truncate:
    """A step that keeps the first `width` numbers of a vector."""

    width: int

    def __str__(self) -> str:
        return f"the first {self.width} numbers"


Step = Dense | LayerNorm | Normalize | Truncate


@dataclass(frozen=True, kw_only=True)
class EmbeddingRecipe:
    """How the token vectors of a text become one vector.

    Attributes:
        poolings: one or several; their vectors are concatenated in this order.
        steps: the steps after the pooling.
        prompt: text that is put before every text.
        pools_prompt: whether the prompt's tokens are pooled, too.
        as_sentence_transformers: whether the length of a text is limited as in
            sentence-transformers.
        max_seq_length: the most tokens of a chunk; None for the limit of the tokenizer and model.
        lowercases: whether the tokenizer makes texts lower case.
        tokenizing: keywords for the tokenizer.
        static: how the folder holds static embeddings, if it does; they have no other pooling than
            the mean.
    """

    poolings: tuple[str, ...] = ("mean",)
    steps: tuple[Step, ...] = ()
    prompt: str = ""
    pools_prompt: bool = True
    as_sentence_transformers: bool = False
    max_seq_length: int | None = None
    lowercases: bool = False
    tokenizing: tuple[tuple[str, Any], ...] = ()
    static: StaticFolder | None = None

    def __str__(self) -> str:
        return "; ".join(self._describe_parts())

    def _describe_parts(self) -> Iterator[str]:
        yield ", ".join([" + ".join(self.poolings), *map(str, self.steps)])
        if self.static:
            yield str(self.static)
        if self.prompt:
            yield f"prompt {self.prompt!r}" + ("" if self.pools_prompt else ", not pooled")
        if self.lowercases:
            yield "lower case"
        if self.tokenizing:
            yield ", ".join(f"{name} {value}" for name, value in self.tokenizing)

    @property
    def excludes_prompt(self) -> bool:
        """Whether there is a prompt whose tokens are not pooled."""
        return bool(self.prompt) and not self.pools_prompt

    def width(self, hidden: int) -> int:
        """Return the width of a text's vector. hidden: the width of a token's vector."""
        width = hidden * len(self.poolings)
        for step in self.steps:
            if isinstance(step, Dense):
                width = step.width
            elif isinstance(step, Truncate):
                width = min(width, step.width)
        return width
