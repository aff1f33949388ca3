"""Texts of megabytes, tokenized in pieces: a tokenizer holds some hundred bytes for each token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Characters of a piece, and of what it shares with the one before it on each side of the cut.
PIECE, SHARED = 2**17, 2**11
# Shorter texts are tokenized at once.
LONG = 2**18


@dataclass(frozen=True)
class Tokens:
    """A text's tokens without special ones: their ids, and the character where each begins."""

    ids: np.ndarray
    begins: np.ndarray


def tokens_of(tokenizer: Any, text: str, keywords: Mapping[str, Any]) -> Tokens | None:
    """The tokens of a long text; None for a short one, and where its pieces do not fit together.

    They do where two of them have the same tokens around the cut, as tokenizers give that look
    at a word, or at a few characters, at a time.

    keywords: the tokenizer's.
    """
    if len(text) < LONG or not tokenizer.is_fast:
        return None
    options = {**keywords, "add_special_tokens": False, "return_attention_mask": False}
    options |= {"return_token_type_ids": False, "truncation": False, "padding": False}
    done: list[Tokens] = []
    left: Tokens | None = None
    for cut in range(0, len(text), PIECE):
        start = max(cut - SHARED, 0)
        piece = text[start : cut + PIECE + SHARED]
        encoding = tokenizer(piece, return_offsets_mapping=True, **options)
        ids = np.array(encoding["input_ids"], dtype=np.int32)
        begins = np.array(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 0] + start
        right = Tokens(ids, begins)
        if left is not None:
            if not _same(left, right, cut):
                return None
            done.append(_between(left, cut - PIECE, cut))
        left = right
    assert left is not None
    done.append(_between(left, cut, len(text)))
    ids, begins = (np.concatenate([getattr(one, n) for one in done]) for n in ("ids", "begins"))
    return Tokens(ids, begins)


def all_tokens(tokenizer: Any, text: str) -> Tokens:
    """The tokens of any text; for a tokenizer that knows characters."""
    if (found := tokens_of(tokenizer, text, {})) is not None:
        return found
    encoding = tokenizer(
        text, add_special_tokens=False, truncation=False, return_offsets_mapping=True
    )
    begins = np.array(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 0]
    return Tokens(np.array(encoding["input_ids"], dtype=np.int32), begins)


def _same(left: Tokens, right: Tokens, cut: int) -> bool:
    near = SHARED // 2
    one, other = _between(left, cut - near, cut + near), _between(right, cut - near, cut + near)
    return (
        len(one.ids) > 0
        and np.array_equal(one.ids, other.ids)
        and np.array_equal(one.begins, other.begins)
    )


def _between(tokens: Tokens, start: int, stop: int) -> Tokens:
    inside = (tokens.begins >= start) & (tokens.begins < stop)
    return Tokens(tokens.ids[inside], tokens.begins[inside])


def surrounded(
    tokenizer: Any, text: str, keywords: Mapping[str, Any], windows: list[np.ndarray]
) -> dict[str, list[np.ndarray]] | None:
    """What the tokenizer makes of these ids, each in its special tokens: `input_ids`, and perhaps
    `token_type_ids`. None where it does something else with them.

    text: any that is not empty.
    """
    names = {**keywords, "return_attention_mask": False, "return_special_tokens_mask": True}
    short = tokenizer(text[:200], truncation=False, **names)
    special = np.array(short["special_tokens_mask"], dtype=bool)
    content = np.flatnonzero(~special)
    if not len(content) or len(content) != content[-1] - content[0] + 1:
        return None
    found: dict[str, list[np.ndarray]] = {}
    for name in ("input_ids", "token_type_ids"):
        if name in short:
            values = np.array(short[name], dtype=np.int32)
            before, after = values[: content[0]], values[content[-1] + 1 :]
            inner = windows
            if name == "token_type_ids":
                if np.ptp(values[content]):
                    return None
                inner = [np.full(len(one), values[content[0]], np.int32) for one in windows]
            found[name] = [np.concatenate([before, one, after]) for one in inner]
    return found
