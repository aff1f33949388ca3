"""How many tokens of a text a pipeline has cut off without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def count_truncated_tokens(tokenizer: Any, text: Any, chunks: list[Mapping[str, Any]]) -> int:
    """Of a text that one chunk holds as far as it goes; 0 where several do, which are windows."""
    if not isinstance(text, str | list) or len(chunks) != 1 or "input_ids" not in chunks[0]:
        return 0
    kept = int(chunks[0]["input_ids"].shape[-1])
    if kept < tokenizer.model_max_length:
        return 0
    whole = tokenizer(text, truncation=False, is_split_into_words=isinstance(text, list))
    return max(len(whole["input_ids"]) - kept, 0)
