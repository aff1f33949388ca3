"""Texts of megabytes, tokenized in pieces: a tokenizer holds some hundred bytes for each token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Characters of a piece, and of what it shares with the previous piece on each side of the cut.
PIECE, SHARED = 2**17, 2**11
# Shorter texts are tokenized at once.
LONG = 2**18


@dataclass(frozen=True)
class Tokens:
    """A text's tokens without special ones.

    Attributes:
        ids: token ids, shape (tokens,).
        spans: the first character of each token, and the one after its last, shape (tokens, 2).
    """

    ids: np.ndarray
    spans: np.ndarray

    @property
    def begins(self) -> np.ndarray:
        """The character where each token begins, shape (tokens,)."""
        return self.spans[:, 0]


def tokenize_in_pieces(tokenizer: Any, text: str, keywords: Mapping[str, Any]) -> Tokens | None:
    """Tokenize a long text piece by piece.

    Two neighbouring pieces fit together if they have the same tokens around the cut. They do with
    tokenizers that look at a word, or at a few characters, at a time.

    Args:
        tokenizer: the model's.
        text: any text.
        keywords: keywords for the tokenizer.

    Returns:
        The tokens. None for a short text, a slow tokenizer, or pieces that do not fit together.
    """
    if len(text) < LONG or not tokenizer.is_fast:
        return None
    options = {**keywords, "add_special_tokens": False, "return_attention_mask": False}
    options |= {"return_token_type_ids": False, "truncation": False, "padding": False}
    parts: list[Tokens] = []
    left: Tokens | None = None
    for cut in range(0, len(text), PIECE):
        start = max(cut - SHARED, 0)
        piece = text[start : cut + PIECE + SHARED]
        encoding = tokenizer(piece, return_offsets_mapping=True, **options)
        ids = np.array(encoding["input_ids"], dtype=np.int32)
        right = Tokens(ids, _read_spans(encoding) + start)
        if left is not None:
            if not _agree_around_cut(left, right, cut):
                return None
            parts.append(_slice_tokens(left, cut - PIECE, cut))
        left = right
    assert left is not None
    parts.append(_slice_tokens(left, cut, len(text)))
    return Tokens(
        np.concatenate([part.ids for part in parts]), np.concatenate([p.spans for p in parts])
    )


def tokenize(tokenizer: Any, text: str) -> Tokens:
    """Tokenize a text of any length with a fast tokenizer."""
    if (tokens := tokenize_in_pieces(tokenizer, text, {})) is not None:
        return tokens
    encoding = tokenizer(
        text, add_special_tokens=False, truncation=False, return_offsets_mapping=True
    )
    return Tokens(np.array(encoding["input_ids"], dtype=np.int32), _read_spans(encoding))


def _read_spans(encoding: Any) -> np.ndarray:
    return np.array(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)


def _agree_around_cut(left: Tokens, right: Tokens, cut: int) -> bool:
    near = SHARED // 2
    one = _slice_tokens(left, cut - near, cut + near)
    other = _slice_tokens(right, cut - near, cut + near)
    return (
        len(one.ids) > 0
        and np.array_equal(one.ids, other.ids)
        and np.array_equal(one.begins, other.begins)
    )


def _slice_tokens(tokens: Tokens, start: int, stop: int) -> Tokens:
    """Return the tokens that begin at characters from `start` up to `stop`."""
    inside = (tokens.begins >= start) & (tokens.begins < stop)
    return Tokens(tokens.ids[inside], tokens.spans[inside])
