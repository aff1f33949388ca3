"""Check that a tokenizer's vocabulary is that of the model."""

from __future__ import annotations

from typing import Any

from ..text.model_limits import count_embedding_rows
from .model import Model

# A vocabulary of fewer tokens than this share of the embedding table is another model's. Tables are
# padded, and hold tokens for other media, but are not twice as large as their vocabulary.
_LEAST_VOCABULARY = 0.5
# A share of the vocabulary that may lie beyond the table: BART's <mask> does.
_MOST_BEYOND = 0.01


def find_tokenizer_misfit(model: Model, loaded: Any, reads_text: bool) -> str | None:
    """Return why the tokenizer can't be the model's; None if nothing is known against it.

    Args:
        model: where the tokenizer is.
        loaded: the model, which may be on the meta device.
        reads_text: whether its embedding table is one of the tokenizer's tokens.
    """
    from transformers import AutoTokenizer

    folder = model.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except TypeError as error:
        if "not NoneType" not in str(error):
            raise
        return _describe_no_vocabulary(folder)  # there was no file to open
    longest = tokenizer.model_max_length
    if not isinstance(longest, int | float):
        return (
            f"tokenizer_config.json in {folder} has a model_max_length of {longest!r}: it must be "
            "a number of tokens"
        )
    try:
        vocabulary = tokenizer.get_vocab()
    except Exception:  # characters and bytes need none
        return None
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    regular = [number for token, number in vocabulary.items() if token not in special]
    if not regular:
        looked = ", ".join(dict.fromkeys(type(tokenizer).vocab_files_names.values()))
        return _describe_no_vocabulary(folder, f" (looked for {looked})")
    table = "embedding table" if reads_text else "CTC head"
    rows = count_embedding_rows(loaded) if reads_text else _count_letters(loaded)
    if rows is None:
        return None
    beyond = sum(number >= rows for number in regular)
    if beyond > _MOST_BEYOND * len(regular):
        return (
            f"the tokenizer in {folder} has {len(vocabulary):,} tokens, and {beyond:,} of their "
            f"ids are beyond the model's {table} of {rows:,}: the tokenizer is of another model"
        )
    if len(vocabulary) < _LEAST_VOCABULARY * rows:
        return (
            f"the tokenizer in {folder} has {len(vocabulary):,} tokens, and the model's {table} "
            f"has room for {rows:,}: the tokenizer is of another model"
        )
    return None


def _count_letters(model: Any) -> int | None:
    """Return how many tokens a model of speech chooses among (CTC); None for another model."""
    is_ctc = type(model).__name__.endswith("ForCTC")
    return getattr(model.config, "vocab_size", None) if is_ctc else None


def _describe_no_vocabulary(folder: str, looked: str = "") -> str:
    return (
        f"{folder} holds no vocabulary for its tokenizer{looked}: every word would be unknown. "
        "Copy the tokenizer's files there (tokenizer.save_pretrained)"
    )
