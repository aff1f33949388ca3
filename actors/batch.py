"""The rows of one split on their way through the stages."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipemill.errors import error_message

# Before the name of a key, in what a batch counts.
LEFT_OUT = "left_out_"


@dataclass(frozen=True)
class Failure:
    """Why a row is a dead letter: the stage it died in, the error's class name and message."""

    stage: str
    error: str
    message: str

    @classmethod
    def of(cls, stage: str, error: BaseException) -> Failure:
        return cls(stage, type(error).__name__, error_message(error)[:2000])


class RowError(RuntimeError):
    """A row failed, and the job says that this ends the run."""


@dataclass
class Batch:
    """All rows of one split, in input order; rows that fail stay, and are named in `failures`.

    rows: one Arrow row per input row, so nothing can separate a row from its chunks.
    failures: by row number in the split; the first failure of a row stands.
    work: what the stages counted, in amounts that add up over splits: chunks, repeated_chunks,
        micro_batches, out_of_memory, tokens, padded_tokens, packed_tokens; truncated_rows and
        lost_tokens, where rows were cut; nan_rows and null_answers, where there are such; seconds
        per stage; actor_seconds, of which the device was busy for forward_seconds; budget_N: 1, if
        the budget is settled at N tokens; left_out_NAME: rows with a value of that key which no
        column holds.
    results: the task's result columns, as long as `rows`; null where a row failed.
    """

    rows: pa.Table
    failures: dict[int, Failure] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    results: pa.Table | None = None

    def ok_rows(self) -> np.ndarray:
        """Numbers of the rows that have not failed."""
        alive = np.ones(self.rows.num_rows, dtype=bool)
        alive[list(self.failures)] = False
        return np.flatnonzero(alive)

    def add_failure(self, stage: str, row: int, error: BaseException) -> None:
        self.failures.setdefault(row, Failure.of(stage, error))

    def add_stats(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.work[name] = self.work.get(name, 0) + amount

    def leave_out(self, rows: Mapping[str, int]) -> None:
        """Count rows with a value that no column holds, by the value's key."""
        for name, count in rows.items():
            self.add_stats(**{LEFT_OUT + name.encode(errors="replace").decode(): count})

    def to_bytes(self) -> bytes:
        """For the way between two Ray operators: one value, which no block boundary can cut."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.rows.schema) as writer:
            writer.write_table(self.rows)
        return pickle.dumps((sink.getvalue(), self.failures, self.work), protocol=5)

    @classmethod
    def from_bytes(cls, payload: bytes) -> Batch:
        table, failures, work = pickle.loads(payload)
        return cls(pa.ipc.open_stream(table).read_all(), failures, work)


def left_out(work: Mapping[str, float]) -> dict[str, int] | None:
    """The field `left_out` of what was counted, if anything was left out."""
    names = [name for name in work if name.startswith(LEFT_OUT)]
    return {name.removeprefix(LEFT_OUT): int(work[name]) for name in names} or None
