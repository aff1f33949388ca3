"""The operator of `pipemill.apply`: it adds a task's columns to the blocks of any Ray dataset."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from .batch import Batch, RowError
from .compute.stages import Stages
from .credentials import Credentials
from .faults.isolated_process import IsolatedProcess, ProcessDied, ProcessError
from .faults.poison_rows import CrashIsolator
from .monitoring.ray_metrics import record_rows
from .output.part_file import append_columns
from .ray_columns import encode_tensors, is_tensor, make_missing_null, unpickle
from .shared_lock import SharedLock
from .sources.schemas.file_schemas import simplify_column

# Bytes of the rows that are computed at once: their chunks take many times that.
_PIECE = 8 * 2**20


@dataclass(frozen=True)
class BoundLoad:
    """What loads a task, and the columns that it reads.

    load: is pickled.
    columns: by the names and with the types that they have in the data.
    """

    load: Callable[[], Stages]
    columns: pa.Schema


class TaskOperator:
    """An actor of `pipemill.apply`: one model replica, in a process that rows may kill.

    Ray would restart an actor that a row killed, and give it the same row again, forever.

    Args:
        bind: from the columns of the rows to the task that reads them.
        error_column: the name of the column that says why a row failed.
        on_error: "column" fills that column, "raise" ends the pipeline at the first failure.
        schema: the columns of the rows, if they are known before the first row is.
        credentials: of the driver, for the process; unpickling them has set them.
        job: what the metrics call the pipeline.
        task: the task's name, for them.
    """

    def __init__(
        self,
        bind: Callable[[pa.Schema], BoundLoad],
        error_column: str,
        on_error: Literal["column", "raise"],
        schema: pa.Schema | None = None,
        credentials: Credentials | None = None,
        *,
        job: str = "apply",
        task: str = "",
    ) -> None:
        self._bind_task, self._error_column, self._on_error = bind, error_column, on_error
        self._job, self._task_name = job, task
        self._lock, self._starting = SharedLock(), threading.Lock()
        self._task: BoundLoad | None = None if schema is None else bind(schema)
        self._process: IsolatedProcess | None = None
        if self._task is not None:
            # Ray would restart an actor that fails here; its first rows will say why.
            with suppress(ProcessDied, ProcessError):
                self._get_process(self._task.load).run((), Batch(pa.table({})))

    def __call__(self, block: pa.Table) -> pa.Table:
        """Add the columns to a block. The order of its rows stays."""
        if not block.num_columns:  # Ray has empty blocks without columns
            return block
        task = self._bind(block)
        rows = pa.table({field.name: _read_column(block, field) for field in task.columns})
        batches = [self._compute(task.load, piece) for piece in _cut(rows)]
        for batch in batches:
            reasons = Counter(failure.reason for failure in batch.failures.values())
            record_rows(batch.rows.num_rows, batch.stats, reasons, self._job, self._task_name)
        errors = pa.chunked_array([self._describe_failures(batch) for batch in batches])
        results = pa.concat_tables([batch.results for batch in batches])
        if self._error_column in results.column_names:
            raise RowError(f"error_column {self._error_column!r} is a column that the task adds")
        return append_columns(block, results.append_column(self._error_column, errors))

    def _bind(self, block: pa.Table) -> BoundLoad:
        with self._starting:
            if self._task is None:
                columns = [make_missing_null(unpickle(column)) for column in block.columns]
                fields = zip(block.column_names, (column.type for column in columns), strict=True)
                self._task = self._bind_task(pa.schema(fields))
            return self._task

    def _get_process(self, load: Callable[[], Stages]) -> IsolatedProcess:
        with self._starting:
            if self._process is None or not self._process.is_alive:
                self._process = IsolatedProcess(load)
            return self._process

    def _compute(self, load: Callable[[], Stages], rows: pa.Table) -> Batch:
        with suppress(ProcessDied), self._lock.shared():
            return self._get_process(load).run(None, Batch(rows))
        # One of the rows that were computed killed the process, or the system did.
        with self._lock.alone():
            if self._process is not None:  # two models may exceed the memory
                self._process.close()
                self._process = None
            with CrashIsolator(lambda: IsolatedProcess(load)) as isolation:
                return isolation.run(None, Batch(rows))

    def _describe_failures(self, batch: Batch) -> pa.Array:
        if batch.failures and self._on_error == "raise":
            _, first = min(batch.failures.items())
            raise RowError(f"a row failed (on_error is raise): {first}")
        why = {row: str(failure) for row, failure in batch.failures.items()}
        return pa.array(map(why.get, range(batch.rows.num_rows)), pa.string())


def _read_column(block: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in block.column_names:
        raise RowError(
            f"a block lacks the column {field.name!r}, which other blocks have; columns: "
            f"{', '.join(block.column_names)}"
        )
    column = unpickle(block[field.name])
    if is_tensor(column.type):
        return encode_tensors(column)
    if not pa.types.is_floating(field.type):
        column = make_missing_null(column)
    return column.cast(field.type) if pa.types.is_null(column.type) else simplify_column(column)


def _cut(rows: pa.Table) -> Iterator[pa.Table]:
    """Cut rows into pieces of about equal numbers of rows, of a size that fits in memory."""
    count = min(max(-(-rows.nbytes // _PIECE), 1), max(rows.num_rows, 1))
    for piece in np.array_split(np.arange(rows.num_rows), count):
        # A copy: a slice would be sent with all bytes of the whole.
        yield rows.take(pa.array(piece))
