"""Hold the rows of one split on their way through the stages."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa

from pipemill.errors import error_message

# Before the name of a key in `Batch.stats`.
LEFT_OUT = "left_out_"
# Keys may be names of things, each there once: so many are told apart, of a split and of all.
_MOST_KEYS, _MOST_COUNTS = 100, 1000
_SHOWN_REASONS = 3
_OTHER_KEYS = f"{LEFT_OUT}(other keys)"
# Before the name of a task in `Batch.stats`.
ROWS_OF = "rows_of_"


@dataclass(frozen=True)
class Failure:
    """Why a row is a dead letter: the stage it failed in, the error's class name and message."""

    stage: str
    error: str
    message: str

    @classmethod
    def of(cls, stage: str, error: BaseException, column: str | None = None) -> Failure:
        message = error_message(error)
        if column is not None and repr(column) not in message:
            message = f"column {column!r}: {message}"
        return cls(stage, type(error).__name__, message[:2000])

    @property
    def reason(self) -> str:
        """Return the stage and the class of the error: few values in all rows of a job."""
        return f"{self.stage}: {self.error}"

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class RowError(RuntimeError):
    """A row failed, and the job ends at the first failure."""


@dataclass
class Batch:
    """All rows of one split, in input order. Rows that fail stay, and are named in `failures`.

    rows: one Arrow row per input row, so nothing can separate a row from its chunks.
    failures: by row number in the split; only the first failure of a row is kept.
    stats: counts that add up over splits: chunks, repeated_chunks, micro_batches, out_of_memory,
        tokens, padded_tokens, packed_tokens; truncated_rows and lost_tokens, if rows were cut;
        nan_rows and null_answers, if there are any; STAGE_seconds; actor_seconds, of which the
        device was busy for forward_seconds; budget_N: 1, if the final budget is N tokens;
        rows_of_NAME: rows that a task of several computed; left_out_NAME: rows with a value of that
        key that no column holds.
    results: the task's result columns, as long as `rows`; null where a row failed.
    lacking: why a column has no values at all, by name, where that is known.
    file_rows: of a bundle, how many rows each of its files has; empty if it is one each.
    """

    rows: pa.Table
    failures: dict[int, Failure] = field(default_factory=dict)
    stats: dict[str, float] = field(default_factory=dict)
    results: pa.Table | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)
    file_rows: tuple[int, ...] = ()

    def ok_rows(self) -> np.ndarray:
        """Return the numbers of the rows that have not failed so far."""
        alive = np.ones(self.rows.num_rows, dtype=bool)
        alive[list(self.failures)] = False
        return np.flatnonzero(alive)

    def add_failure(
        self, stage: str, row: int, error: BaseException, column: str | None = None
    ) -> None:
        """Make a row a dead letter, unless it is one already. column: whose value is at fault."""
        self.failures.setdefault(row, Failure.of(stage, error, column))

    def add_stats(self, **amounts: float) -> None:
        """Add to the counts."""
        for name, amount in amounts.items():
            self.stats[name] = self.stats.get(name, 0) + amount

    def count_left_out(self, rows: Mapping[str, int]) -> None:
        """Count rows with a value that no column holds, by the value's key."""
        for place, (name, count) in enumerate(Counter(rows).most_common()):
            key = LEFT_OUT + name.encode(errors="replace").decode()
            self.add_stats(**{key if place < _MOST_KEYS else _OTHER_KEYS: count})

    def to_bytes(self) -> bytes:
        """Serialize for the next Ray operator, as one value that no block boundary can cut."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.rows.schema) as writer:
            writer.write_table(self.rows)
        others = self.failures, self.stats, dict(self.lacking), self.file_rows
        return pickle.dumps((sink.getvalue(), *others), protocol=5)

    @classmethod
    def from_bytes(cls, payload: bytes) -> Batch:
        table, failures, stats, lacking, file_rows = pickle.loads(payload)
        rows = pa.ipc.open_stream(table).read_all()
        return cls(rows, failures, stats, lacking=lacking, file_rows=file_rows)


def join_files(batches: Iterable[Batch]) -> Batch:
    """Return the rows of several files as those of one split."""
    pieces = list(batches)
    tables = [piece.rows for piece in pieces]
    stats: Counter[str] = Counter()
    failures, start = {}, 0
    for piece in pieces:
        failures.update({start + row: why for row, why in piece.failures.items()})
        add_counts(stats, piece.stats)
        start += piece.rows.num_rows
    return Batch(
        pa.concat_tables(tables).combine_chunks(),
        failures,
        dict(stats),
        lacking=join_lacking(tables, [piece.lacking for piece in pieces]),
        file_rows=tuple(table.num_rows for table in tables),
    )


def join_lacking(
    tables: Sequence[pa.Table], lacking: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Return the reasons of all files, for columns that are null only in rows of such files."""
    joined = {}
    for name in dict.fromkeys(name for reasons in lacking for name in reasons):
        nulls = [
            reasons.get(name)
            for table, reasons in zip(tables, lacking, strict=True)
            if table[name].null_count
        ]
        if nulls and None not in nulls:
            different = dict.fromkeys(filter(None, nulls))
            more = len(different) - _SHOWN_REASONS
            shown = "; ".join(islice(different, _SHOWN_REASONS))
            joined[name] = f"{shown}; the same in {more:,} more" if more > 0 else shown
    return joined


def add_counts(totals: Counter[str], counts: Mapping[str, float]) -> None:
    """Add what a split counted to the totals of many."""
    for name, count in counts.items():
        if len(totals) >= _MOST_COUNTS and name not in totals and name.startswith(LEFT_OUT):
            name = _OTHER_KEYS
        totals[name] += count  # type: ignore[assignment]


def left_out(stats: Mapping[str, float]) -> dict[str, int] | None:
    """Return by key how many rows had a value that no column holds; None without any."""
    names = [name for name in stats if name.startswith(LEFT_OUT)]
    return {name.removeprefix(LEFT_OUT): int(stats[name]) for name in names} or None
