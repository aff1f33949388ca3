"""How far an engine's answers are from those of plain transformers in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# More rows with another answer than this share are a finding: the engine is not usable.
_MOST_FLIPPED = 0.05
_FEWEST_ROWS = 20


@dataclass
class Drift:
    """The differences of rows that an engine computed, from plain transformers.

    Attributes:
        engine: the engine and its dtype.
        rows: compared so far.
        flipped: rows with another best label, answer or entities.
        score: the largest difference of two scores of the same label.
        cosines: of each row's vector with the right one.
    """

    engine: str
    rows: int = 0
    flipped: int = 0
    score: float = 0.0
    cosines: list[float] = field(default_factory=list)

    def add(self, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Compare the result columns of one row."""
        self.rows += 1
        if "embedding" in expected:
            self._add_vectors(got["embedding"], expected["embedding"])
            return
        ours, right = _read_scores(got), _read_scores(expected)
        same = [abs(ours[label] - right[label]) for label in ours.keys() & right.keys()]
        self.score = max([self.score, *same])
        self.flipped += _find_best(got) != _find_best(expected)

    def _add_vectors(self, got: Any, expected: Any) -> None:
        one, other = (np.array(value, np.float64).ravel() for value in (got, expected))
        if one.shape == other.shape:
            length = float(np.linalg.norm(one) * np.linalg.norm(other))
            self.cosines.append(float(one @ other) / length if length else 1.0)
        else:
            self.flipped += 1

    def summary(self) -> dict[str, Any]:
        """Return what is reported; without vectors no cosines, and the other way round."""
        shown: dict[str, Any] = {"engine": self.engine, "rows": self.rows, "flipped": self.flipped}
        if not self.cosines:
            return {**shown, "largest_score_difference": self.score}
        return {
            **shown,
            "mean_cosine": float(np.mean(self.cosines)),
            "least_cosine": min(self.cosines),
        }

    def finding(self) -> str | None:
        """Return what is wrong with so many other answers; None if all is well."""
        if self.rows < _FEWEST_ROWS or self.flipped <= _MOST_FLIPPED * self.rows:
            return None
        return (
            f"{self.flipped} of {self.rows} rows have another answer than with plain transformers "
            f"in float32: {self.engine} is not precise enough for this model"
        )

    def __str__(self) -> str:
        if self.cosines:
            mean, least = float(np.mean(self.cosines)), min(self.cosines)
            text = f"cosine with plain transformers {mean:.5f} in the mean, at least {least:.5f}"
        else:
            text = (
                f"{self.flipped} of {self.rows} rows have another answer than plain transformers; "
                f"scores differ by up to {self.score:.2g}"
            )
        return f"{self.engine}: {text}"


def _read_scores(record: Mapping[str, Any]) -> dict[Any, float]:
    """Return the score of each label, answer or entity of a row."""
    if "labels" in record:
        return dict(zip(record["labels"] or (), record["scores"] or (), strict=True))
    if "score" in record:
        return {record.get("label", record.get("answer")): record["score"]}
    items = record.get("entities") or record.get("predictions") or ()
    return {_make_key(item): item["score"] for item in items if "score" in item}


def _find_best(record: Mapping[str, Any]) -> Any:
    """Return the answer itself, without scores."""
    if "labels" in record:
        return (record["labels"] or [None])[0]
    if "predictions" in record:
        return [_make_key(item) for item in record["predictions"] or ()][:1]
    if "entities" in record:
        return [_make_key(item) for item in record["entities"] or ()]
    return record.get("label", record.get("answer"))


def _make_key(item: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("entity", "entity_group", "start", "end", "token", "label")
    return tuple(item.get(name) for name in names)
