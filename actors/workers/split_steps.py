"""What the workers do with a split: read, isolate, write, and report on it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import pyarrow as pa

from pipemill.errors import StoreError, error_message

from ..batch import Batch, RowError
from ..compute.stages import Stages
from ..faults.attempts import AttemptError, Attempts, SplitGivenUp, has_suspects, run_attempt
from ..faults.blame import MediaAway, is_memory_failure, is_row_error
from ..faults.isolated_process import IsolatedProcess
from ..faults.load_errors import LoadError
from ..faults.poison_rows import CrashIsolator, UnprocessableSplit
from ..faults.process_end import set_replaceable
from ..model_slot import ModelSlot
from ..monitoring.ray_metrics import record_split
from ..split import Split, SplitReader
from ..split_result import Cause, SplitResult, results_from_table, results_to_table
from ..storage.backoff import is_forbidden

if TYPE_CHECKING:
    from ..compute.cascade import Cascade


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


class WorkerModel:
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


def isolate_in_process(load: Load, source: SplitReader | None = None) -> CrashIsolator:
    """Return what computes in a separate process, which a row may kill."""
    return CrashIsolator(lambda: IsolatedProcess(load, source))


def load_stages(load: Load) -> Stages | Cascade:
    """Load the task. Raises LoadError."""
    try:
        return load()
    except Exception as error:
        raise LoadError.of(error) from None


def find_crowding(split: Split, batch: Batch) -> SplitResult | None:
    """Return a result that asks for fewer actors on the GPU, if a row alone does not fit."""
    for failure in batch.failures.values():
        if is_memory_failure(failure.error, failure.message):
            reason = f"{failure.error}: {failure.message}"
            return SplitResult(split=split, error=reason, cause="memory")
    return None


def read_split(source: SplitReader, split: Split) -> Batch:
    """Read a split's rows, and note how long it took."""
    started = time.perf_counter()
    batch = source.read(split)
    batch.add_stats(read_seconds=time.perf_counter() - started)
    return batch


def write_split(sink: Sink, split: Split, batch: Batch) -> SplitResult:
    """Write a split's part and dead letters, and return what to report of it."""
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
_EXPLAINED = (*_FATAL, SplitGivenUp, MediaAway)


def process_safely(process: Process, split: Split, payload: bytes | None) -> SplitResult:
    """Process a split; an exception becomes the `error` of its result.

    No exception may reach Ray, which would lose the block, stop the job, or retry forever.
    """
    try:
        return process(split, payload)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        message, cause = error_message(error), _find_cause(error)
        if not isinstance(error, _EXPLAINED) and cause != "library":
            message = f"{type(error).__name__}: {message}"
        return SplitResult(
            split=split,
            error=message,
            fatal=_is_fatal(error),
            cause=cause,
        )


def _is_fatal(error: BaseException) -> bool:
    """Tell whether the next split would fail, too."""
    if isinstance(error, MediaAway):
        return False
    return isinstance(error, _FATAL) or not is_row_error(error)


def _find_cause(error: BaseException) -> Cause | None:
    """Return what kind of error it is, if that decides how the run goes on."""
    if isinstance(error, LoadError) and error.for_good:
        return "model"
    if isinstance(error, LoadError) and error.out_of_memory:
        return "memory"
    if is_forbidden(error):
        return "access"
    if isinstance(error, MediaAway):
        return "away"
    return "library" if getattr(error, "no_rows_fault", False) else None


def map_splits(table: pa.Table, process: Process) -> pa.Table:
    """Process the splits of a Ray batch, except those that failed in an earlier operator."""
    set_replaceable(True)
    return results_to_table(
        result
        if result.error is not None
        else process_safely(process, result.split, result.payload)
        for result in results_from_table(table)
    )
