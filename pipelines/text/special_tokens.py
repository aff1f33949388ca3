"""The special tokens that a tokenizer puts before and after a text's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .token_chunks import INPUTS, SPANS
from .token_ranges import Windows, concatenate_ranges


@dataclass(frozen=True)
class Surroundings:
    """What stands around a text in one input of a model.

    Attributes:
        before: values before the text's own, shape (special tokens,).
        after: values after them.
        inner: the value of each of the text's own tokens; None for ids.
    """

    before: np.ndarray
    after: np.ndarray
    inner: int | None


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens around a text. inputs: by name, "input_ids" and perhaps more."""

    inputs: Mapping[str, Surroundings]

    def count(self) -> int:
        """Count the special tokens of a text."""
        ids = self.inputs["input_ids"]
        return len(ids.before) + len(ids.after)

    def surround(
        self, ids: np.ndarray, windows: Windows, spans: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Return the inputs of windows, each one array: one window after the other.

        Args:
            ids: the stream that the windows are cut from, without special tokens.
            windows: the windows.
            spans: where in its text each token is, shape (tokens, 2); see `build_chunks` of what
                is returned for them.
        """
        lengths = windows.lengths + self.count()
        begins = np.cumsum(lengths) - lengths
        first = len(self.inputs["input_ids"].before)
        own = concatenate_ranges(begins + first, windows.lengths)
        if len(own) != len(ids) or len(windows.counts) != len(lengths):  # cut, or overlapping
            places = concatenate_ranges(windows.starts, windows.lengths)
            ids, spans = ids[places], None if spans is None else spans[places]
        inputs = {}
        for name, around in self.inputs.items():
            values = np.empty(int(lengths.sum()), dtype=np.int32)
            values[own] = ids if around.inner is None else around.inner
            for i, value in enumerate(around.before):
                values[begins + i] = value
            for i, value in enumerate(around.after):
                values[begins + first + windows.lengths + i] = value
            inputs[name] = values
        for name, values in zip(SPANS, () if spans is None else spans.T, strict=False):
            inputs[name] = np.full(int(lengths.sum()), -1, dtype=np.int32)
            inputs[name][own] = values
        return inputs


def find_special_tokens(
    tokenizer: Any, text: str, keywords: Mapping[str, Any]
) -> SpecialTokens | None:
    """Return the special tokens around a text.

    Args:
        tokenizer: the model's.
        text: any text that is not empty; it shows where the special tokens stand.
        keywords: keywords for the tokenizer.

    Returns:
        Those of `input_ids`, and of `token_type_ids` if the tokenizer makes them. None if the
        tokenizer does anything else than surround a text.
    """
    options = {**keywords, "return_attention_mask": False, "return_special_tokens_mask": True}
    short = tokenizer(text[:200], truncation=False, **options)
    special = np.array(short["special_tokens_mask"], dtype=bool)
    content = np.flatnonzero(~special)
    if not len(content) or len(content) != content[-1] - content[0] + 1:
        return None
    inputs = {}
    for name in INPUTS:
        if name in short:
            values = np.array(short[name], dtype=np.int32)
            own = values[content]
            if name == "token_type_ids" and np.ptp(own):
                return None
            inner = None if name == "input_ids" else int(own[0])
            inputs[name] = Surroundings(values[: content[0]], values[content[-1] + 1 :], inner)
    return SpecialTokens(inputs)
