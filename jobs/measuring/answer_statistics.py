"""What the answers in parts are like: labels, scores, vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BINS = 20


@dataclass(frozen=True, kw_only=True)
class AnswerStatistics:
    """Counts over some parts of an output.

    Attributes:
        name: of the task, where there are several.
        labels: how often each label is there.
        scores: rows by score, in bins of equal width from 0 to 1; empty without scores.
        dimension: of the vectors; None without any.
        norms: the least, the median and the largest length of a vector.
    """

    name: str
    labels: Counter[str]
    scores: list[int]
    dimension: int | None
    norms: tuple[float, float, float] | None


def describe_answers(tables: Iterable[pa.Table], name: str = "") -> AnswerStatistics:
    """Count labels, scores and lengths of vectors; columns of other kinds count nothing.

    Args:
        tables: columns `label`, `score` and `embedding`.
        name: of the task.
    """
    labels: Counter[str] = Counter()
    scores = np.zeros(_BINS, dtype=int)
    norms: list[np.ndarray] = []
    dimension = None
    for table in tables:
        if "label" in table.column_names:
            labels.update(map(str, table["label"].drop_null().to_pylist()))
        if "score" in table.column_names and pa.types.is_floating(table.schema.field("score").type):
            values = table["score"].drop_null().to_numpy()
            scores += np.histogram(values[np.isfinite(values)], _BINS, (0, 1))[0]
        if "embedding" in table.column_names:
            vectors = table["embedding"].drop_null().combine_chunks()
            if len(vectors) and pa.types.is_floating(vectors.type.value_type):
                dimension = int(pc.list_value_length(vectors)[0].as_py())
                flat = vectors.flatten().to_numpy(zero_copy_only=False)
                if len(flat) == dimension * len(vectors):
                    matrix = flat.astype(np.float64).reshape(len(vectors), dimension)
                    norms.append(np.linalg.norm(matrix, axis=1))
    every = np.concatenate(norms) if norms else None
    return AnswerStatistics(
        name=name,
        labels=labels,
        scores=scores.tolist() if scores.any() else [],
        dimension=dimension,
        norms=None
        if every is None
        else (float(every.min()), float(np.median(every)), float(every.max())),
    )


def count_lengths(columns: Iterable[pa.ChunkedArray]) -> list[tuple[int, int]]:
    """Return (most characters, texts) of classes that double, from the shortest to the longest."""
    counts: Counter[int] = Counter()
    for column in columns:
        lengths = pc.utf8_length(column.drop_null()).to_numpy()
        classes = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
        counts.update(dict(zip(*np.unique(classes, return_counts=True), strict=True)))
    if not counts:
        return []
    return [(2**k, int(counts[k])) for k in range(min(counts), max(counts) + 1)]
