"""Token chunks: what a task makes of texts whose tokens a model reads as one sequence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.arrow_arrays import make_lists

from .model_limits import check_token_count

# Fields of chunks that the model gets, if the tokenizer makes them.
INPUTS = ("input_ids", "token_type_ids")
# Fields of chunks that say where in its text each token is.
SPANS = ("starts", "ends")


def build_chunks(
    encoding: Any, equal_sizes: bool, lost: np.ndarray | None = None
) -> pa.StructArray:
    """Build chunks from a tokenizer's output for several texts.

    Args:
        encoding: the tokenizer's output, one entry per chunk.
        equal_sizes: whether chunks of different length must not share a micro-batch.
        lost: tokens that were truncated from the text of each chunk, shape (chunks,).

    Returns:
        Structs with `size` (tokens), one list per model input, and `group` and `lost` where they
        apply. Where the encoding says where tokens are in their texts, two lists more: each one's
        first character, and the one after its last (`starts`, `ends`); -1 for special tokens.
    """
    lists = {name: encoding[name] for name in INPUTS if name in encoding}
    lengths = np.fromiter(map(len, lists["input_ids"]), dtype=np.int64)
    total = int(lengths.sum())
    inputs = {name: _concatenate(values, total) for name, values in lists.items()}
    if "offset_mapping" in encoding:
        pairs = chain.from_iterable(encoding["offset_mapping"])
        spans = _concatenate(pairs, 2 * total).reshape(-1, 2)
        spans[_concatenate(encoding["special_tokens_mask"], total) != 0] = -1
        inputs.update(zip(SPANS, spans.T, strict=True))
    return build_from_stream(inputs, lengths, equal_sizes, lost)


def _concatenate(lists: Iterable[Iterable[int]], total: int) -> np.ndarray:
    return np.fromiter(chain.from_iterable(lists), np.int32, total)


def build_from_stream(
    inputs: Mapping[str, np.ndarray],
    lengths: np.ndarray,
    equal_sizes: bool,
    lost: np.ndarray | None = None,
) -> pa.StructArray:
    """Build the same chunks from the model's inputs, each one chunk after the other.

    Args:
        inputs: int32 values by name, shape (tokens of all chunks,).
        lengths: tokens of each chunk, shape (chunks,).
        equal_sizes: as in `build_chunks`.
        lost: as in `build_chunks`.
    """
    columns = {"size": pa.array(lengths)}
    if equal_sizes:
        columns["group"] = columns["size"]
    if lost is not None:
        columns["lost"] = pa.array(lost, pa.int32())
    for name, values in inputs.items():
        columns[name] = make_lists(pa.array(values), lengths)
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def check_chunk_sizes(chunks: pa.StructArray, limit: int | None, advice: str) -> None:
    """Raise ValueError, with the advice, if a chunk has more than `limit` tokens."""
    check_token_count(int(np.max(chunks.field("size").to_numpy(), initial=0)), limit, advice)


def to_vector_array(array: np.ndarray) -> pa.FixedSizeListArray:
    """Convert shape (chunks, width) to one float32 list per chunk, without Python lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])


def to_matrix(vectors: pa.FixedSizeListArray) -> np.ndarray:
    """Convert one list per chunk to shape (chunks, width)."""
    return vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1)
