"""Shared by the tasks whose model reads one text, or a pair, as one sequence of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
_ROPE_BY_LENGTH = ("dynamic", "longrope")
_UNBOUNDED = 10**9  # what tokenizers say that know no limit is larger


def as_chunks(encoding: Any, equal_sizes: bool, lost: np.ndarray | None = None) -> pa.StructArray:
    """A tokenizer's output for several texts as chunks: `size`, and a list per model input.

    equal_sizes: chunks of different length must not share a micro-batch.
    lost: tokens that were cut from each text, shape (chunks,).
    """
    fields = {name: encoding[name] for name in ("input_ids", "token_type_ids") if name in encoding}
    lengths = np.fromiter(map(len, fields["input_ids"]), dtype=np.int64)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    columns = {"size": pa.array(lengths)}
    if equal_sizes:
        columns["group"] = columns["size"]
    if lost is not None:
        columns["lost"] = pa.array(lost, pa.int32())
    for name, lists in fields.items():
        values = np.fromiter((i for ids in lists for i in ids), np.int32, int(lengths.sum()))
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(values))
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def per_row(chunks: pa.StructArray, counts: np.ndarray) -> pa.ListArray:
    """Consecutive chunks as one list per row."""
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), chunks)


def check_length(chunks: pa.StructArray, limit: int | None, advice: str) -> None:
    check_tokens(int(np.max(chunks.field("size").to_numpy(), initial=0)), limit, advice)


def check_tokens(count: int, limit: int | None, advice: str) -> None:
    """Raises where the model has no more positions: a GPU would take all rows down with this."""
    if limit is not None and count > limit:
        raise ValueError(f"{count} tokens are more than the model's {limit}: {advice}")


def embedding_rows(model: Any) -> int | None:
    """Return how many tokens a model's embedding table holds; None if it has no such table."""
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return getattr(table, "num_embeddings", None)


def check_ids(ids: np.ndarray, rows: int | None) -> None:
    """Raise ValueError for ids beyond the table: on a GPU they would take all rows down."""
    if rows is not None and len(ids) and int(ids.max()) >= rows:
        raise ValueError(
            f"the text has the token id {int(ids.max())}, beyond the model's embedding table of "
            f"{rows}: the tokenizer and the model do not belong together"
        )


def max_length(pipeline: Any) -> int | None:
    """The most tokens, special ones included, that a cut text has; None for any."""
    limits = [pipeline.tokenizer.model_max_length, positions(pipeline.model)]
    limit = min(limit for limit in limits if limit and limit > 0)
    return int(limit) if limit < _UNBOUNDED else None


def told_length(tokenizer: Any) -> int | None:
    """What the tokenizer cuts texts to; None where it was told no length."""
    limit = tokenizer.model_max_length
    return int(limit) if limit and 0 < limit < _UNBOUNDED else None


def positions(model: Any) -> int | None:
    """How many tokens a model's table of positions has room for; None if it has no such table.

    RoBERTa and its kin start counting after the padding index, BART and OPT at an offset.
    """
    table = position_table(model)
    if table is None or _is_endless(model, table):
        return None
    reserved = 0 if table.padding_idx is None else table.padding_idx + 1
    return int(table.num_embeddings - reserved - getattr(table, "offset", 0))


def _is_endless(model: Any, table: Any) -> bool:
    """Whether more tokens than the table has places are no error.

    FSMT's grows. TAPAS counts anew in every cell, and takes the last place for all that follow;
    so does ProphetNet.
    """
    if hasattr(table, "make_weight") or type(table).__name__ == "ProphetNetPositionalEmbeddings":
        return True
    config = model.config
    return config.model_type == "tapas" and bool(config.reset_position_index_per_cell)


def position_table(model: Any) -> Any:
    """The model's embedding of positions; None if it has none."""
    beside = _place_of_words(model)
    for name, module in model.named_modules():
        table = name.endswith(_POSITIONS) and hasattr(module, "num_embeddings")
        if table and name.startswith(beside):
            return module
    return None


def _place_of_words(model: Any) -> str:
    """The part of the model that holds its words: that which sees or hears has other positions."""
    try:
        words = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return ""
    name = next((name for name, module in model.named_modules() if module is words), "")
    return name.rpartition(".")[0]


def needs_own_length(model: Any) -> bool:
    """Whether the longest chunk of a micro-batch decides how all are computed.

    Their positions, where rotary ones are scaled; the blocks of attention in BigBird, which a
    short chunk alone turns off for good.
    """
    config = model.config.get_text_config()
    if getattr(config, "attention_type", None) == "block_sparse":
        return True
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(inner for inner in rope.values() if isinstance(inner, dict))]
    return any(kind.get("rope_type") in _ROPE_BY_LENGTH for kind in kinds)


def needs_equal_sizes(pipeline: Any) -> bool:
    """Whether padding on the right would change this model's answers.

    Decoders with a classifier find a text's last token as the last that is not the *config's*
    padding: it must be the tokenizer's.
    """
    config = pipeline.model.config.get_text_config()
    return (
        pipeline.tokenizer.pad_token_id is None
        or pipeline.tokenizer.pad_token_id != getattr(config, "pad_token_id", None)
        or pipeline.tokenizer.padding_side == "left"
        or "attention_mask" not in pipeline.tokenizer.model_input_names
        or needs_own_length(pipeline.model)
    )


def vectors(array: np.ndarray) -> pa.FixedSizeListArray:
    """Shape (chunks, width) as one float32 list per chunk, without a Python list on the way."""
    return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])


def matrix(vectors: pa.FixedSizeListArray) -> np.ndarray:
    """The reverse: shape (chunks, width)."""
    return vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1)
