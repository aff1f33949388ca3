"""The functions that Ray calls: splits in, a result about each out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeVar

import pyarrow as pa

from pipemill.errors import StoreError, error_message

from .batch import Batch, RowError
from .compute.stages import Stages
from .faults.attempts import AttemptError, Attempts, SplitGivenUp, has_suspects, run_attempt
from .faults.blame import find_blame, is_memory_failure, is_row_error
from .faults.isolated_process import IsolatedProcess
from .faults.load_errors import LoadError
from .faults.poison_rows import CrashIsolator, UnprocessableSplit
from .faults.process_end import set_replaceable
from .model_slot import ModelSlot
from .monitoring.ray_metrics import record_split
from .split import Split, SplitReader
from .split_result import Cause, SplitResult, results_from_table, results_to_table

if TYPE_CHECKING:
    from .compute.cascade import Cascade


class Sink(Protocol):
    """Writes what became of a split.

    Attributes:
        name: a short name of the output.
        job: the task.
    """

    job: str

    @property
    def name(self) -> str: ...

    def is_done(self, split: Split) -> bool: ...

    def attempts(self) -> Attempts: ...

    def write(self, split: Split, batch: Batch) -> None:
        """Write the dead letters first, then the part: a split whose part exists is done."""


Load = Callable[[], "Stages | Cascade"]
Process = Callable[[Split, bytes | None], SplitResult]

T = TypeVar("T")


class FusedWorker:
    """One model replica: loads once, then reads, processes and writes whole splits."""

    # Whether another process may take the place of the worker's.
    replaceable = True

    def __init__(
        self, load: Load, source: SplitReader, sink: Sink, *, shares_gpu: bool = False
    ) -> None:
        """shares_gpu: whether other actors hold memory of the GPU."""
        set_replaceable(self.replaceable)
        self.load, self.source, self.sink = load, source, sink
        self.shares_gpu = shares_gpu
        self.model = _Model(load, sink.attempts())

    def __call__(self, table: pa.Table) -> pa.Table:
        return _map_splits(table, self._process)

    def process(self, split: Split) -> SplitResult:
        """Process a split without Ray."""
        return _process_safely(self._process, split, None)

    def _process(self, split: Split, _: bytes | None) -> SplitResult:
        # Ray may run a task again after its part was written.
        if self.sink.is_done(split):
            return SplitResult(split=split)
        return self.model.run_attempt(
            split, lambda: self._usual(split), lambda: self._isolated(split)
        )

    def _usual(self, split: Split) -> SplitResult:
        batch = _read(self.source, split)
        with self.model.slot.stages() as stages:
            batch = stages.process(batch)
        return self._finish(split, batch)

    def _isolated(self, split: Split) -> SplitResult:
        with (
            self.model.slot.unloaded(),
            _isolate_in_process(self.load, self.source) as isolation,
        ):
            batch = isolation.read(split)
            batch = isolation.run(None, batch)
        return self._finish(split, batch)

    def _finish(self, split: Split, batch: Batch) -> SplitResult:
        crowded = _find_crowding(split, batch) if self.shares_gpu else None
        return crowded or _write(self.sink, split, batch)


class LocalWorker(FusedWorker):
    """A worker in the user's process, which never ends itself.

    After an error of the device that stays, a separate process computes.
    """

    replaceable = False

    def __init__(self, load: Load, source: SplitReader, sink: Sink) -> None:
        super().__init__(load, source, sink)
        self._instead: CrashIsolator | None = None

    def close(self) -> None:
        """End the separate process, if there is one."""
        if self._instead is not None:
            self._instead.__exit__()

    def _usual(self, split: Split) -> SplitResult:
        if self._instead is None:
            try:
                return super()._usual(split)
            except Exception as error:
                if find_blame(error) != "process":
                    raise
            self.model.slot.discard()
            self._instead = _isolate_in_process(self.load)
        batch = self._instead.run(None, _read(self.source, split))
        return _write(self.sink, split, batch)


class ExpandWorker:
    """The first of three operators: reads a split and expands it, on CPU."""

    def __init__(self, load: Load, source: SplitReader, sink: Sink) -> None:
        self.load, self.source, self.sink = load, source, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return _map_splits(table, self._process)

    def _process(self, split: Split, _: bytes | None) -> SplitResult:
        if self.sink.is_done(split):
            return SplitResult(split=split)
        attempts = self.sink.attempts()
        # Listed for every split: Ray runs a task that died in any process, however old.
        seen = attempts.names()
        return run_attempt(
            attempts, seen, split.part, lambda: self._usual(split), lambda: self._isolated(split)
        )

    def _usual(self, split: Split) -> SplitResult:
        batch = _load_once(self.load).expand(_read(self.source, split))
        return SplitResult(split=split, payload=batch.to_bytes())

    def _isolated(self, split: Split) -> SplitResult:
        with _isolate_in_process(self.load, self.source) as isolation:
            batch = isolation.run(("expand",), isolation.read(split))
        return SplitResult(split=split, payload=batch.to_bytes())


class ForwardWorker:
    """The second operator: one model replica, which only computes."""

    def __init__(self, load: Load, attempts: Attempts, *, shares_gpu: bool = False) -> None:
        """shares_gpu: whether other actors hold memory of the GPU."""
        set_replaceable(True)
        self.load, self.shares_gpu = load, shares_gpu
        self.model = _Model(load, attempts)

    def __call__(self, table: pa.Table) -> pa.Table:
        return _map_splits(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> SplitResult:
        if payload is None:
            return SplitResult(split=split)
        batch = Batch.from_bytes(payload)
        computed = self.model.run_attempt(
            split, lambda: self._usual(batch), lambda: self._isolated(batch)
        )
        crowded = _find_crowding(split, computed) if self.shares_gpu else None
        return crowded or SplitResult(split=split, payload=computed.to_bytes())

    def _usual(self, batch: Batch) -> Batch:
        with self.model.slot.stages() as stages:
            assert isinstance(stages, Stages)
            return stages.forward(batch)

    def _isolated(self, batch: Batch) -> Batch:
        with self.model.slot.unloaded(), _isolate_in_process(self.load) as isolation:
            return isolation.run(("forward",), batch)


class RegroupWorker:
    """The third operator: turns outputs into answers and writes the part, on CPU."""

    def __init__(self, load: Load, sink: Sink) -> None:
        self.load, self.sink = load, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return _map_splits(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> SplitResult:
        if payload is None:
            return SplitResult(split=split)
        attempts, batch = self.sink.attempts(), Batch.from_bytes(payload)
        return run_attempt(
            attempts,
            attempts.names(),
            split.part,
            lambda: _write(self.sink, split, _load_once(self.load).regroup(batch)),
            lambda: self._isolated(split, batch),
        )

    def _isolated(self, split: Split, batch: Batch) -> SplitResult:
        with _isolate_in_process(self.load) as isolation:
            batch = isolation.run(("regroup",), batch)
        return _write(self.sink, split, batch)


class _Model:
    """The model of an actor, and the attempts that were there before the actor started.

    Ray retries a split in an actor that died, after a restart: one listing is enough.
    """

    def __init__(self, load: Load, attempts: Attempts) -> None:
        self.attempts = attempts
        try:
            self.seen = attempts.names()
        except Exception:  # Ray would restart the actor forever; writing says what is wrong
            self.seen = []
        self.slot = ModelSlot(load, attempts, self.seen)
        # If a split is suspected, the model waits for the first one that is not.
        if not has_suspects(self.seen):
            self.slot.load()

    def run_attempt(self, split: Split, usual: Callable[[], T], isolated: Callable[[], T]) -> T:
        return run_attempt(self.attempts, self.seen, split.part, usual, isolated)


def _isolate_in_process(load: Load, source: SplitReader | None = None) -> CrashIsolator:
    return CrashIsolator(lambda: IsolatedProcess(load, source))


@lru_cache(maxsize=1)
def _load_once(load: Load) -> Stages:
    """Load for Ray tasks, which have no constructor: what they load stays in their process."""
    stages = load_stages(load)
    assert isinstance(stages, Stages)  # a cascade is not cut into operators
    return stages


def load_stages(load: Load) -> Stages | Cascade:
    """Load the task. Raises LoadError."""
    try:
        return load()
    except Exception as error:
        raise LoadError.of(error) from None


def _find_crowding(split: Split, batch: Batch) -> SplitResult | None:
    """Return a result that asks for fewer actors on the GPU, if a row alone does not fit."""
    for failure in batch.failures.values():
        if is_memory_failure(failure.error, failure.message):
            reason = f"{failure.error}: {failure.message}"
            return SplitResult(split=split, error=reason, cause="memory")
    return None


def _read(source: SplitReader, split: Split) -> Batch:
    started = time.perf_counter()
    batch = source.read(split)
    batch.add_stats(read_seconds=time.perf_counter() - started)
    return batch


def _write(sink: Sink, split: Split, batch: Batch) -> SplitResult:
    started = time.perf_counter()
    try:
        sink.write(split, batch)
    except RowError as error:
        return SplitResult(split=split, error=error_message(error), fatal=True, cause="row")
    except Exception as error:
        reason = f"{type(error).__name__}: {error_message(error)}"
        return SplitResult(
            split=split, error=f"the part could not be written: {reason}", fatal=True
        )
    batch.add_stats(write_seconds=time.perf_counter() - started)
    failures = [(row, batch.failures[row]) for row in sorted(batch.failures)[:3]]
    result = SplitResult(
        split=split,
        rows=batch.rows.num_rows,
        dead=len(batch.failures),
        work=batch.stats,
        first_failures=tuple(f"row {row}, {failure}" for row, failure in failures),
        reasons=Counter(failure.reason for failure in batch.failures.values()),
    )
    record_split(result, sink.name, sink.job)
    return result


# Errors that the next split would meet, too.
_FATAL = (LoadError, AttemptError, UnprocessableSplit, StoreError)
# Errors whose message says enough without the name of the class.
_EXPLAINED = (*_FATAL, SplitGivenUp)


def _process_safely(process: Process, split: Split, payload: bytes | None) -> SplitResult:
    """Process a split; an exception becomes the `error` of its result.

    No exception may reach Ray, which would lose the block, stop the job, or retry forever.
    """
    try:
        return process(split, payload)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        message, cause = error_message(error), _cause_of(error)
        if not isinstance(error, _EXPLAINED) and cause != "library":
            message = f"{type(error).__name__}: {message}"
        return SplitResult(
            split=split,
            error=message,
            fatal=isinstance(error, _FATAL) or not is_row_error(error),
            cause=cause,
        )


def _cause_of(error: BaseException) -> Cause | None:
    """Return what stops the run for good, or would not be so with fewer actors on a GPU."""
    if isinstance(error, LoadError) and error.for_good:
        return "model"
    if isinstance(error, LoadError) and error.out_of_memory:
        return "memory"
    return "library" if getattr(error, "no_rows_fault", False) else None


def _map_splits(table: pa.Table, process: Process) -> pa.Table:
    """Process the splits of a Ray batch, except those that failed in an earlier operator."""
    set_replaceable(True)
    return results_to_table(
        result
        if result.error is not None
        else _process_safely(process, result.split, result.payload)
        for result in results_from_table(table)
    )
