"""What a worker reports about a split, and how that travels through Ray: one row per split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from .split import Split

Cause = Literal["model", "row", "library", "memory", "access", "away"]

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("rows", pa.int64()),
        ("dead", pa.int64()),
        ("work", pa.map_(pa.string(), pa.float64())),
        ("first_failures", pa.list_(pa.string())),
        ("reasons", pa.map_(pa.string(), pa.int64())),
        ("error", pa.string()),
        ("fatal", pa.bool_()),
        ("cause", pa.string()),
        ("payload", pa.large_binary()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """A split that was processed, or why it could not be.

    Attributes:
        rows, dead: rows of the split, and how many of them are dead letters. None if the part
            was there already.
        work: what was counted and measured, as in `Batch.stats`.
        first_failures: a line about each of the first rows that failed.
        reasons: how many rows failed, by the stage and the class of the error.
        error: why the split could not be processed; None if it was.
        fatal: whether the next split would fail in the same way.
        cause: what stops a run for good: the model can't be loaded ("model"), a row failed where
            none may ("row"), or a row needs a library that is not installed ("library"). Running
            again would not help. Or "memory": fewer actors on a GPU may help; or "access": its
            input may not be read, which credentials that expired would cause for all splits; or
            "away": the server of its media does not answer.
        payload: the batch on its way to the next operator of Ray.
    """

    split: Split
    rows: int | None = None
    dead: int | None = None
    work: Mapping[str, float] = field(default_factory=dict)
    first_failures: tuple[str, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    fatal: bool = False
    cause: Cause | None = None
    payload: bytes | None = None

    def to_row(self) -> dict[str, Any]:
        """Return a row of `SCHEMA`."""
        return {
            **vars(self),
            "split": self.split.to_json(),
            "work": list(self.work.items()),
            "first_failures": list(self.first_failures),
            "reasons": list(self.reasons.items()),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> SplitResult:
        """Read a row of `SCHEMA`; columns may be missing or null."""
        fields = {name: value for name, value in row.items() if value is not None}
        return cls(
            **{
                **fields,
                "split": Split.from_json(row["split"]),
                "work": dict(fields.get("work", ())),
                "first_failures": tuple(fields.get("first_failures", ())),
                "reasons": dict(fields.get("reasons", ())),
            }
        )


def results_to_table(results: Iterable[SplitResult]) -> pa.Table:
    return pa.Table.from_pylist([result.to_row() for result in results], schema=SCHEMA)


def results_from_table(table: pa.Table) -> list[SplitResult]:
    return [SplitResult.from_row(row) for row in table.to_pylist()]
