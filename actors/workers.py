"""What Ray calls: splits in, a line about each out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import pyarrow as pa

from pipemill.errors import StoreError, error_message

from .batch import Batch, RowError
from .compute.stages import Stages
from .faults.attempts import AttemptError, Attempts, has_suspects, run_attempt
from .faults.bisect import is_row_error
from .faults.isolated_process import IsolatedProcess
from .faults.load_errors import LoadError
from .faults.poison_rows import CrashIsolator, UnprocessableSplit
from .model_slot import ModelSlot

Split = dict[str, Any]
SplitResult = dict[str, Any]

# What stops a run for good: the model can't be loaded, a row failed where none may, or a library
# is missing that a row needs.
MODEL, ROW, LIBRARY = "model", "row", "library"

# What travels between the operators, and at the end to the driver: one row per split.
SPLIT_RESULT_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("rows", pa.int64()),  # null for a split that was done already
        ("dead", pa.int64()),
        ("work", pa.map_(pa.string(), pa.float64())),
        ("first_failures", pa.list_(pa.string())),
        ("error", pa.string()),  # why the split could not be done
        ("fatal", pa.bool_()),  # the next split would fail alike
        ("cause", pa.string()),  # one of the above, where running again would not help
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
        return process_splits(table, self._process)

    def _process(self, split: Split, _: bytes | None) -> SplitResult:
        # Ray may run a task again after its part was written.
        if self.sink.is_done(split):
            return {}
        return self.model.tried(split, lambda: self._usual(split), lambda: self._isolated(split))

    def _usual(self, split: Split) -> SplitResult:
        batch = self.source.read(split)
        with self.model.resident.stages() as stages:
            batch = stages.process(batch)
        return _write(self.sink, split, batch)

    def _isolated(self, split: Split) -> SplitResult:
        with (
            self.model.resident.unloaded(),
            _isolate_in_process(self.load, self.source) as isolation,
        ):
            batch = isolation.read(split)
            batch = isolation.run(("expand", "forward", "regroup"), batch)
        return _write(self.sink, split, batch)


class ExpandWorker:
    """First of three operators: reads a split and expands it, on CPU."""

    def __init__(self, load: Load, source: Source, sink: Sink) -> None:
        self.load, self.source, self.sink = load, source, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return process_splits(table, self._process)

    def _process(self, split: Split, _: bytes | None) -> SplitResult:
        if self.sink.is_done(split):
            return {}
        attempts = self.sink.attempts()
        # Listed for every split: Ray runs a task that died in any process, however old.
        return run_attempt(
            attempts,
            attempts.names(),
            split["part"],
            lambda: {"payload": _load_once(self.load).expand(self.source.read(split)).to_bytes()},
            lambda: self._isolated(split),
        )

    def _isolated(self, split: Split) -> SplitResult:
        with _isolate_in_process(self.load, self.source) as isolation:
            return {"payload": isolation.run(("expand",), isolation.read(split)).to_bytes()}


class ForwardWorker:
    """Second operator: one model replica, which only computes."""

    def __init__(self, load: Load, attempts: Attempts) -> None:
        self.load = load
        self.model = _Model(load, attempts)

    def __call__(self, table: pa.Table) -> pa.Table:
        return process_splits(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> SplitResult:
        if payload is None:
            return {}
        batch = Batch.from_bytes(payload)
        return self.model.tried(split, lambda: self._usual(batch), lambda: self._isolated(batch))

    def _usual(self, batch: Batch) -> SplitResult:
        with self.model.resident.stages() as stages:
            return {"payload": stages.forward(batch).to_bytes()}

    def _isolated(self, batch: Batch) -> SplitResult:
        with self.model.resident.unloaded(), _isolate_in_process(self.load) as isolation:
            return {"payload": isolation.run(("forward",), batch).to_bytes()}


class RegroupWorker:
    """Third operator: shapes the answers and writes the part, on CPU."""

    def __init__(self, load: Load, sink: Sink) -> None:
        self.load, self.sink = load, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return process_splits(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> SplitResult:
        if payload is None:
            return {}
        attempts, batch = self.sink.attempts(), Batch.from_bytes(payload)
        return run_attempt(
            attempts,
            attempts.names(),
            split["part"],
            lambda: _write(self.sink, split, _load_once(self.load).regroup(batch)),
            lambda: self._isolated(split, batch),
        )

    def _isolated(self, split: Split, batch: Batch) -> SplitResult:
        with _isolate_in_process(self.load) as isolation:
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
        self.resident = ModelSlot(load, attempts, self.seen)
        # With suspects about the model waits for the first split that is none.
        if not has_suspects(self.seen):
            self.resident.load()

    def tried(
        self, split: Split, usual: Callable[[], SplitResult], isolated: Callable[[], SplitResult]
    ) -> SplitResult:
        return run_attempt(self.attempts, self.seen, split["part"], usual, isolated)


def _isolate_in_process(load: Load, source: Source | None = None) -> CrashIsolator:
    return CrashIsolator(lambda: IsolatedProcess(load, source))


@lru_cache(maxsize=1)
def _load_once(load: Load) -> Stages:
    """Ray tasks have no constructor: what they load stays in their process."""
    return load_stages(load)


def load_stages(load: Load) -> Stages:
    """The loaded task. Raises LoadError."""
    try:
        return load()
    except Exception as error:
        raise LoadError.of(error) from None


def _write(sink: Sink, split: Split, batch: Batch) -> SplitResult:
    try:
        sink.write(split, batch)
    except RowError as error:
        return {"error": error_message(error), "fatal": True, "cause": ROW}
    except Exception as error:
        reason = f"{type(error).__name__}: {error_message(error)}"
        return {
            "error": f"the part could not be written: {reason}",
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
_FATAL = (LoadError, AttemptError, UnprocessableSplit, StoreError)


def _describe_error(error: BaseException) -> str:
    message = error_message(error)
    plain = isinstance(error, _FATAL) or _cause(error) == LIBRARY
    return message if plain else f"{type(error).__name__}: {message}"


def _cause(error: BaseException) -> str | None:
    """Return why no other run would do better, if so."""
    if isinstance(error, LoadError) and error.for_good:
        return MODEL
    return LIBRARY if getattr(error, "no_rows_fault", False) else None


def process_splits(
    table: pa.Table, process: Callable[[Split, bytes | None], SplitResult]
) -> pa.Table:
    """Processes the splits of a Ray batch. An exception becomes the split's `error`.

    None may reach Ray, whose answers are to lose the block, stop the job, or retry for ever.
    """
    lines = []
    for row in table.to_pylist():
        line: SplitResult = row
        if row.get("error") is None:
            try:
                line = process(json.loads(row["split"]), row.get("payload"))
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                fatal = isinstance(error, _FATAL) or not is_row_error(error)
                line = {"error": _describe_error(error), "fatal": fatal, "cause": _cause(error)}
        lines.append({**line, "split": row["split"]})
    return pa.Table.from_pylist(lines, schema=SPLIT_RESULT_SCHEMA)
