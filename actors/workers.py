"""What Ray calls: splits in, a line about each out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import pyarrow as pa

from .batch import Batch, RowError
from .compute.stages import Stages
from .faults.attempts import AttemptError, Attempts, any_suspects, tried
from .faults.bisect import is_rows_fault
from .faults.isolated_process import Child
from .faults.load_errors import LoadError
from .faults.poison_rows import HopelessSplit, Isolation
from .model_slot import Resident
from .said import said
from .store import StoreError

Split = dict[str, Any]
Line = dict[str, Any]

# What stops a run for good: the model can't be loaded, or a row failed where none may.
MODEL, ROW = "model", "row"

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
        ("cause", pa.string()),  # MODEL or ROW, where running again would not help
        ("payload", pa.large_binary()),
    ]
)


class Source(Protocol):
    def read(self, split: Split) -> Batch:
        """All rows of a split; rows that can't be read are failures of the stage "read"."""


class Sink(Protocol):
    def is_done(self, split: Split) -> bool: ...

    def attempts(self) -> Attempts: ...

    def write(self, split: Split, batch: Batch) -> None:
        """Dead letters first, then the part: the part exists, the split is done."""


Load = Callable[[], Stages]


class FusedWorker:
    """One model replica: loads once, then reads, processes and writes whole splits."""

    def __init__(self, load: Load, source: Source, sink: Sink) -> None:
        self.load, self.source, self.sink = load, source, sink
        self.model = _Model(load, sink.attempts())

    def __call__(self, table: pa.Table) -> pa.Table:
        return _each_split(table, self._process)

    def _process(self, split: Split, _: bytes | None) -> Line:
        # Ray may run a task again after its part was written.
        if self.sink.is_done(split):
            return {}
        return self.model.tried(split, lambda: self._usual(split), lambda: self._isolated(split))

    def _usual(self, split: Split) -> Line:
        batch = self.source.read(split)
        with self.model.resident.stages() as stages:
            batch = stages.process(batch)
        return _write(self.sink, split, batch)

    def _isolated(self, split: Split) -> Line:
        with self.model.resident.put_away(), _isolation(self.load, self.source) as isolation:
            batch = isolation.read(split)
            batch = isolation.run(("expand", "forward", "regroup"), batch)
        return _write(self.sink, split, batch)


class ExpandWorker:
    """First of three operators: reads a split and expands it, on CPU."""

    def __init__(self, load: Load, source: Source, sink: Sink) -> None:
        self.load, self.source, self.sink = load, source, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return _each_split(table, self._process)

    def _process(self, split: Split, _: bytes | None) -> Line:
        if self.sink.is_done(split):
            return {}
        attempts = self.sink.attempts()
        # Listed for every split: Ray runs a task that died in any process, however old.
        return tried(
            attempts,
            attempts.names(),
            split["part"],
            lambda: {"payload": _once(self.load).expand(self.source.read(split)).to_bytes()},
            lambda: self._isolated(split),
        )

    def _isolated(self, split: Split) -> Line:
        with _isolation(self.load, self.source) as isolation:
            return {"payload": isolation.run(("expand",), isolation.read(split)).to_bytes()}


class ForwardWorker:
    """Second operator: one model replica, which only computes."""

    def __init__(self, load: Load, attempts: Attempts) -> None:
        self.load = load
        self.model = _Model(load, attempts)

    def __call__(self, table: pa.Table) -> pa.Table:
        return _each_split(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> Line:
        if payload is None:
            return {}
        batch = Batch.from_bytes(payload)
        return self.model.tried(split, lambda: self._usual(batch), lambda: self._isolated(batch))

    def _usual(self, batch: Batch) -> Line:
        with self.model.resident.stages() as stages:
            return {"payload": stages.forward(batch).to_bytes()}

    def _isolated(self, batch: Batch) -> Line:
        with self.model.resident.put_away(), _isolation(self.load) as isolation:
            return {"payload": isolation.run(("forward",), batch).to_bytes()}


class RegroupWorker:
    """Third operator: shapes the answers and writes the part, on CPU."""

    def __init__(self, load: Load, sink: Sink) -> None:
        self.load, self.sink = load, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return _each_split(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> Line:
        if payload is None:
            return {}
        attempts, batch = self.sink.attempts(), Batch.from_bytes(payload)
        return tried(
            attempts,
            attempts.names(),
            split["part"],
            lambda: _write(self.sink, split, _once(self.load).regroup(batch)),
            lambda: self._isolated(split, batch),
        )

    def _isolated(self, split: Split, batch: Batch) -> Line:
        with _isolation(self.load) as isolation:
            batch = isolation.run(("regroup",), batch)
        return _write(self.sink, split, batch)


class _Model:
    """An actor's model, and what was tried before the actor started.

    Ray does a split again in the actor that it killed, started afresh: one listing is enough.
    """

    def __init__(self, load: Load, attempts: Attempts) -> None:
        self.attempts = attempts
        try:
            self.seen = attempts.names()
        except Exception:  # Ray would start the actor again for ever; writing says what is wrong
            self.seen = []
        self.resident = Resident(load, attempts, self.seen)
        # With suspects about the model waits for the first split that is none.
        if not any_suspects(self.seen):
            self.resident.load()

    def tried(self, split: Split, usual: Callable[[], Line], isolated: Callable[[], Line]) -> Line:
        return tried(self.attempts, self.seen, split["part"], usual, isolated)


def _isolation(load: Load, source: Source | None = None) -> Isolation:
    return Isolation(lambda: Child(load, source))


@lru_cache(maxsize=1)
def _once(load: Load) -> Stages:
    """Ray tasks have no constructor: what they load stays in their process."""
    return loaded(load)


def loaded(load: Load) -> Stages:
    """The loaded task. Raises LoadError."""
    try:
        return load()
    except Exception as error:
        raise LoadError.of(error) from None


def _write(sink: Sink, split: Split, batch: Batch) -> Line:
    try:
        sink.write(split, batch)
    except RowError as error:
        return {"error": said(error), "fatal": True, "cause": ROW}
    except Exception as error:
        return {
            "error": f"the part could not be written: {type(error).__name__}: {said(error)}",
            "fatal": True,
        }
    failures = [(row, batch.failures[row]) for row in sorted(batch.failures)[:3]]
    return {
        "rows": batch.rows.num_rows,
        "dead": len(batch.failures),
        "work": list(batch.work.items()),
        "first_failures": [f"row {row}, {f.stage}: {f.error}: {f.message}" for row, f in failures],
    }


# Of which the next split would die, too.
_FATAL = (LoadError, AttemptError, HopelessSplit, StoreError)


def _said(error: BaseException) -> str:
    message = said(error)
    return message if isinstance(error, _FATAL) else f"{type(error).__name__}: {message}"


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
                fatal = isinstance(error, _FATAL) or not is_rows_fault(error)
                cause = MODEL if isinstance(error, LoadError) and error.for_good else None
                line = {"error": _said(error), "fatal": fatal, "cause": cause}
        lines.append({**line, "split": row["split"]})
    return pa.Table.from_pylist(lines, schema=LINE)
