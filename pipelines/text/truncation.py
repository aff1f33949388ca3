"""Truncated texts: cut long ones before they are tokenized often, and count the tokens lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from .long_texts import tokenize
from .model_limits import find_tokenizer_limit

# On average a token has fewer characters: a shorter text is hardly longer than its prefix.
_MAX_CHARACTERS_PER_TOKEN = 16
# Tokens that are kept after the limit, because a cut changes the tokens next to it.
_MARGIN = 64

NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})


def truncate_like_tokenizer(text: str, pipeline: Any) -> tuple[str, int]:
    """Truncate a text that the pipeline truncates to its tokenizer's `model_max_length`.

    Returns:
        The same as `truncate_to_prefix`.
    """
    tokenizer = pipeline.tokenizer
    return truncate_to_prefix(tokenizer, text, find_tokenizer_limit(tokenizer))


def truncate_to_prefix(tokenizer: Any, text: str, limit: int | None) -> tuple[str, int]:
    """Return a prefix of the text with the same first `limit` tokens, and how many it lacks.

    A tokenizer's output for a million characters takes hundreds of megabytes, and zero-shot
    classification needs it once per label.

    Args:
        tokenizer: the model's.
        text: any text.
        limit: the most tokens that are read; None for all.

    Returns:
        The prefix, and the number of tokens after it. The whole text and 0 if it is short, or if
        the tokenizer does not show where tokens begin.
    """
    if limit is None or len(text) <= _MAX_CHARACTERS_PER_TOKEN * limit:
        return text, 0
    if not tokenizer.is_fast or tokenizer.truncation_side != "right":
        return text, 0
    options = {"add_special_tokens": False, "return_attention_mask": False, "truncation": False}
    tokens = tokenize(tokenizer, text)
    kept = limit + _MARGIN
    if len(tokens.ids) <= kept:
        return text, 0
    prefix = text[: tokens.begins[kept]]
    ids = tokenizer(prefix, **options)["input_ids"]
    if len(ids) < limit or list(ids[:limit]) != list(tokens.ids[:limit]):
        return text, 0
    return prefix, len(tokens.ids) - len(ids)


def count_truncated_tokens(tokenizer: Any, text: Any, chunks: list[Mapping[str, Any]]) -> int:
    """Count the tokens of a text that its single chunk lacks; 0 for several chunks: windows."""
    if not isinstance(text, str | list) or len(chunks) != 1 or "input_ids" not in chunks[0]:
        return 0
    kept = int(chunks[0]["input_ids"].shape[-1])
    if kept < tokenizer.model_max_length:
        return 0
    whole = tokenizer(text, truncation=False, is_split_into_words=isinstance(text, list))
    return max(len(whole["input_ids"]) - kept, 0)


def count_truncated_in_batch(
    tokenizer: Any,
    encoding: Any,
    texts: Sequence[list[str]],
    limit: int,
    keywords: Mapping[str, Any] = NO_KEYWORDS,
) -> np.ndarray:
    """Count the tokens that truncation to `limit` cut from each text.

    Args:
        tokenizer: the tokenizer that truncated them.
        encoding: its output for `texts`.
        texts: one list of texts, or two of equal length: pairs.
        limit: the most tokens of a chunk, special ones included.
        keywords: keywords that the tokenizer was called with.

    Returns:
        Tokens, shape (texts,).
    """
    kept = count_tokens(encoding)
    lost = np.zeros(len(kept), dtype=np.int32)
    full = np.flatnonzero(kept >= limit)
    if len(texts) == 1 and encoding.is_fast:
        special = count_special_tokens(tokenizer, 1, keywords)
        for i in full:
            lost[i] = sum(len(rest) - special for rest in encoding[int(i)].overflowing)
    elif len(full):
        # The tokenizer does not count what it cuts, so texts that may have been cut are tokenized
        # once more, whole.
        whole = tokenizer(
            *[[column[i] for i in full] for column in texts],
            **{**keywords, "return_attention_mask": False},
        )
        lost[full] = count_tokens(whole) - kept[full]
    return lost


def count_special_tokens(
    tokenizer: Any, texts: int, keywords: Mapping[str, Any] = NO_KEYWORDS
) -> int:
    """Count the special tokens that surround one text (`texts` is 1) or a pair (2)."""
    added = keywords.get("add_special_tokens", True)
    return tokenizer.num_special_tokens_to_add(pair=texts == 2) if added else 0


def count_tokens(encoding: Any) -> np.ndarray:
    """Count the tokens of each chunk of a tokenizer's output, shape (chunks,)."""
    return np.fromiter(map(len, encoding["input_ids"]), np.int32)
