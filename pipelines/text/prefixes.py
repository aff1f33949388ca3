"""Long texts of which a model reads the beginning only: cut once, before they are read often."""

from __future__ import annotations

from typing import Any

from . import token_chunks
from .long_texts import all_tokens

# On average a token has fewer characters: shorter texts are hardly longer than what is read.
_CHARACTERS = 16
# Tokens left behind those that are read: a cut changes what is next to it.
_MARGIN = 64


def beginning_told(text: str, pipeline: Any) -> tuple[str, int]:
    """The same for a text that the pipeline cuts to the length which its tokenizer was told."""
    return truncate_to_prefix(
        pipeline.tokenizer, text, token_chunks.told_length(pipeline.tokenizer)
    )


def truncate_to_prefix(tokenizer: Any, text: str, limit: int | None) -> tuple[str, int]:
    """A beginning of the text with the same first `limit` tokens, and how many it has less.

    The whole text where it is short, or where that can't be said: a tokenizer's output for a
    million characters takes hundreds of megabytes, and zero-shot wants it for every label.

    limit: tokens that are read at the most; None for all.
    """
    if limit is None or len(text) <= _CHARACTERS * limit:
        return text, 0
    if not tokenizer.is_fast or tokenizer.truncation_side != "right":
        return text, 0
    plain = {"add_special_tokens": False, "return_attention_mask": False, "truncation": False}
    tokens = all_tokens(tokenizer, text)
    ids, begins = tokens.ids, tokens.begins
    kept = limit + _MARGIN
    if len(ids) <= kept:
        return text, 0
    short = text[: begins[kept]]
    again = tokenizer(short, **plain)["input_ids"]
    if len(again) < limit or list(again[:limit]) != list(ids[:limit]):
        return text, 0
    return short, len(ids) - len(again)
