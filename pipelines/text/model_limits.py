"""Limits of a model and its tokenizer: how many tokens they take, and which ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
# Models whose table is no module: rotary positions, or sines, up to a fixed one.
_WITHOUT_MODULE = ("gptj", "codegen", "ctrl")
_DYNAMIC, _LONG = "dynamic", "longrope"  # kinds of rotary positions
_UNBOUNDED = 10**9  # tokenizers that know no limit have a larger one


@dataclass(frozen=True)
class ScaledPositions:
    """How a model's rotary positions change with the tokens that it computes at a time.

    The longest text of a forward pass decides the positions of all.

    Attributes:
        usual: how many tokens a text may have whose positions are not scaled.
        scales_once: whether those of all longer texts are scaled alike.
    """

    usual: int
    scales_once: bool

    @classmethod
    def of(cls, config: Any) -> ScaledPositions | None:
        """Return those of a text model's config; None if they do not depend on the length."""
        rope = getattr(config, "rope_parameters", None) or {}
        settings = [rope, *(inner for inner in rope.values() if isinstance(inner, dict))]
        found = [one for one in settings if one.get("rope_type") in (_DYNAMIC, _LONG)]
        if not found:
            return None
        most = config.max_position_embeddings
        long = [one for one in found if one["rope_type"] == _LONG]
        lengths = {int(one.get("original_max_position_embeddings") or most) for one in long}
        if len(long) < len(found):
            lengths.add(int(most))
        return cls(min(lengths), len(lengths) == 1 and len(long) == len(found))

    def find_scale(self, begin: int, end: int | None) -> int | None:
        """Return which texts of as many tokens may be computed together; None if none may.

        Args:
            begin: the tokens of the prompt.
            end: the most tokens of the whole text; None if there is no limit.
        """
        if end is not None and end <= self.usual:
            return 0
        return 1 if self.scales_once and begin > self.usual else None


def find_max_length(pipeline: Any) -> int | None:
    """Return the most tokens of a truncated text, special ones included; None for no limit."""
    limits = [pipeline.tokenizer.model_max_length, count_positions(pipeline.model)]
    limit = min(limit for limit in limits if limit and limit > 0)
    return int(limit) if limit < _UNBOUNDED else None


def find_tokenizer_limit(tokenizer: Any) -> int | None:
    """Return the length in tokens that the tokenizer truncates texts to; None if it has none."""
    limit = tokenizer.model_max_length
    return int(limit) if limit and 0 < limit < _UNBOUNDED else None


def count_positions(model: Any) -> int | None:
    """Return how many tokens a model's table of positions can hold; None if it has no such table.

    RoBERTa and its relatives start counting after the padding index, BART and OPT at an offset.
    """
    config = getattr(model, "config", None)  # FSMT's decoder has none
    if config is not None and config.model_type in _WITHOUT_MODULE:
        return int(config.max_position_embeddings)
    table = find_position_table(model)
    if table is None or _is_unlimited(model, table):
        return None
    reserved = 0 if table.padding_idx is None else table.padding_idx + 1
    return int(table.num_embeddings - reserved - getattr(table, "offset", 0))


def _is_unlimited(model: Any, table: Any) -> bool:
    """Return whether the model takes more tokens than the table has positions.

    FSMT's table grows. TAPAS starts counting again in every cell, and uses the last position for
    all tokens that follow; so does ProphetNet.
    """
    if hasattr(table, "make_weight") or type(table).__name__ == "ProphetNetPositionalEmbeddings":
        return True
    config = model.config
    return config.model_type == "tapas" and bool(config.reset_position_index_per_cell)


def find_position_table(model: Any) -> Any:
    """Return the model's embedding of positions; None if it has no such module."""
    prefix = _find_prefix_of_words(model)
    for name, module in model.named_modules():
        is_table = name.endswith(_POSITIONS) and hasattr(module, "num_embeddings")
        if is_table and name.startswith(prefix):
            return module
    return None


def _find_prefix_of_words(model: Any) -> str:
    """Return the name of the part of the model that embeds words.

    The parts of a model that see or hear have other positions.
    """
    try:
        words = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return ""
    name = next((name for name, module in model.named_modules() if module is words), "")
    return name.rpartition(".")[0]


def count_embedding_rows(model: Any) -> int | None:
    """Return how many tokens a model's embedding table holds; None if it has no such table."""
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return getattr(table, "num_embeddings", None)


def check_token_count(count: int, limit: int | None, advice: str) -> None:
    """Raise ValueError, with the advice, for more tokens than the model has positions.

    On a GPU one such row would make the whole process fail.
    """
    if limit is not None and count > limit:
        raise explain_token_count(count, limit, advice)


def explain_token_count(count: int, limit: int, advice: str) -> ValueError:
    """Return the error of so many tokens, with the advice."""
    return ValueError(f"{count} tokens are more than the model's {limit}: {advice}")


def explain_too_long(limit: int) -> str:
    """Return why a text can't be written on: its next token would have no position."""
    return (
        f"the text has grown to the {limit} tokens that the model has positions for: lower "
        "max_new_tokens, or shorten what is read"
    )


def check_token_ids(ids: np.ndarray, rows: int | None) -> None:
    """Raise ValueError for ids beyond the embedding table.

    On a GPU one such row would make the whole process fail.
    """
    if rows is not None and len(ids) and int(ids.max()) >= rows:
        raise ValueError(
            f"the text has the token id {int(ids.max())}, beyond the model's embedding table of "
            f"{rows}: the tokenizer and the model do not belong together; check model.path"
        )


def needs_own_length(model: Any) -> bool:
    """Return whether the longest chunk of a micro-batch decides how all of them are computed.

    It decides the positions where rotary ones are scaled, and the blocks of attention in BigBird,
    which a short chunk alone turns off for good.
    """
    config = model.config.get_text_config()
    if getattr(config, "attention_type", None) == "block_sparse":
        return True
    return ScaledPositions.of(config) is not None


def needs_equal_sizes(pipeline: Any) -> bool:
    """Return whether padding on the right would change this model's answers.

    Decoders with a classifier take the last token that is not the *config's* padding as a text's
    last token: that padding must be the tokenizer's.
    """
    config = pipeline.model.config.get_text_config()
    return (
        pipeline.tokenizer.pad_token_id is None
        or pipeline.tokenizer.pad_token_id != getattr(config, "pad_token_id", None)
        or pipeline.tokenizer.padding_side == "left"
        or "attention_mask" not in pipeline.tokenizer.model_input_names
        or needs_own_length(pipeline.model)
    )
