"""What Ray calls: splits in, a line about each out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import pyarrow as pa

from .batch import Batch
from .isolate import is_rows_fault
from .stages import Stages

Split = dict[str, Any]
Line = dict[str, Any]

# What travels between the operators, and at the end to the driver: one row per split.
LINE = pa.schema(
    [
        ("split", pa.string()),
        ("rows", pa.int64()),  # null for a split that was done already
        ("dead", pa.int64()),
        ("work", pa.map_(pa.string(), pa.float64())),
        ("first_failures", pa.list_(pa.string())),
        ("error", pa.string()),  # why the split could not be done
        ("fatal", pa.bool_()),  # the next split would fail alike
        ("payload", pa.large_binary()),
    ]
)


class Source(Protocol):
    def read(self, split: Split) -> Batch:
        """All rows of a split; rows that can't be read are failures of the stage "read"."""


class Sink(Protocol):
    def is_done(self, split: Split) -> bool: ...

    def write(self, split: Split, batch: Batch) -> None:
        """Dead letters first, then the part: the part exists, the split is done."""


Load = Callable[[], Stages]


class FusedWorker:
    """One model replica: loads once, then reads, processes and writes whole splits."""

    def __init__(self, load: Load, source: Source, sink: Sink) -> None:
        self.source, self.sink = source, sink
        self.stages, self.error = load_or_reason(load)

    def __call__(self, table: pa.Table) -> pa.Table:
        return _each_split(table, self._process)

    def _process(self, split: Split, _: bytes | None) -> Line:
        if self.stages is None:
            return {"error": self.error, "fatal": True}
        # Ray may run a task again after its part was written.
        if self.sink.is_done(split):
            return {}
        return _write(self.sink, split, self.stages.process(self.source.read(split)))


class ExpandWorker:
    """First of three operators: reads a split and expands it, on CPU."""

    def __init__(self, load: Load, source: Source, sink: Sink) -> None:
        self.load, self.source, self.sink = load, source, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return _each_split(table, self._process)

    def _process(self, split: Split, _: bytes | None) -> Line:
        if self.sink.is_done(split):
            return {}
        return {"payload": _once(self.load).expand(self.source.read(split)).to_bytes()}


class ForwardWorker:
    """Second operator: one model replica, which only computes."""

    def __init__(self, load: Load) -> None:
        self.stages, self.error = load_or_reason(load)

    def __call__(self, table: pa.Table) -> pa.Table:
        return _each_split(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> Line:
        if self.stages is None:
            return {"error": self.error, "fatal": True}
        if payload is None:
            return {}
        return {"payload": self.stages.forward(Batch.from_bytes(payload)).to_bytes()}


class RegroupWorker:
    """Third operator: shapes the answers and writes the part, on CPU."""

    def __init__(self, load: Load, sink: Sink) -> None:
        self.load, self.sink = load, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return _each_split(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> Line:
        if payload is None:
            return {}
        return _write(self.sink, split, _once(self.load).regroup(Batch.from_bytes(payload)))


@lru_cache(maxsize=1)
def _once(load: Load) -> Stages:
    """Ray tasks have no constructor: what they load stays in their process."""
    return load()


def load_or_reason(load: Load) -> tuple[Stages | None, str | None]:
    """An actor whose constructor raises is started again by Ray for ever: say it instead."""
    try:
        return load(), None
    except Exception as error:
        return None, f"loading failed: {type(error).__name__}: {error}"


def _write(sink: Sink, split: Split, batch: Batch) -> Line:
    try:
        sink.write(split, batch)
    except Exception as error:
        return {
            "error": f"the part could not be written: {type(error).__name__}: {error}",
            "fatal": True,
        }
    failures = [(row, batch.failures[row]) for row in sorted(batch.failures)[:3]]
    return {
        "rows": batch.rows.num_rows,
        "dead": len(batch.failures),
        "work": list(batch.work.items()),
        "first_failures": [f"row {row}, {f.stage}: {f.error}: {f.message}" for row, f in failures],
    }


def _each_split(table: pa.Table, process: Callable[[Split, bytes | None], Line]) -> pa.Table:
    """Processes the splits of a Ray batch. An exception becomes the split's `error`.

    None may reach Ray, whose answers are to lose the block, stop the job, or retry for ever.
    """
    lines = []
    for row in table.to_pylist():
        line: Line = row
        if row.get("error") is None:
            try:
                line = process(json.loads(row["split"]), row.get("payload"))
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                fatal = not is_rows_fault(error)
                line = {"error": f"{type(error).__name__}: {error}", "fatal": fatal}
        lines.append({**line, "split": row["split"]})
    return pa.Table.from_pylist(lines, schema=LINE)
