"""A few result rows, as a table that fits a terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.batch import Batch, Failure
from pipemill.actors.compute.stages import Stages
from pipemill.actors.output.part_file import append_columns
from pipemill.actors.storage.store import Store

from pipemill.errors import RunError, error_message, explain_missing_library

from .config.job import Job
from .output.ledger import Ledger
from .planning.find_model import load_failure
from .planning.infer_columns import schema_of_sample
from .planning.prepared_job import PreparedJob
from .planning.sample_rows import sample_rows
from .prepare import prepare_without_output

_ROWS, _WIDTH = 3, 60


@dataclass(frozen=True)
class Preview:
    """The first rows of a job, as its output would hold them, and those that failed by number."""

    rows: pa.Table
    failures: dict[int, Failure]
    notes: tuple[str, ...] = ()

    @property
    def all_failed(self) -> bool:
        return bool(self.failures) and len(self.failures) == self.rows.num_rows

    def to_json(self) -> str:
        """One line: counts, and the columns with their types."""
        count, dead = self.rows.num_rows, len(self.failures)
        columns = {field.name: str(field.type) for field in self.rows.schema}
        return json.dumps({"rows": count, "done": count - dead, "dead": dead, "columns": columns})

    def __str__(self) -> str:
        lines = []
        for number, row in enumerate(self.rows.to_pylist()):
            lines += _lines(number, row)
            if (failure := self.failures.get(number)) is not None:
                lines.append(f"  dead: {failure.stage}: {failure.error}: {failure.message}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def preview(job: Job, rows: int) -> Preview:
    """Computes the first rows of the input in this process. Writes nothing.

    Raises ConfigError for a job that can't run, RunError if no sample of rows shows its columns.
    """
    prepared = prepare_without_output(job)
    table = sample_rows(prepared.source, prepared.plan.splits, rows, places=1).rows
    try:
        loaded = prepared.load.loaded()
        stages = prepared.load.stages(loaded)
    except Exception as error:
        raise load_failure(error, job.model.path) from error
    if prepared.asks_sample:
        schema = _sampled(prepared, stages)
        stages = prepared.load.stages(replace(loaded, schema=schema))
    with explain_missing_library():
        batch = stages.process(Batch(table))
    assert batch.results is not None
    rows = append_columns(batch.rows.select(prepared.sink.keep), batch.results)
    return Preview(rows, batch.failures, prepared.notes)


def _sampled(prepared: PreparedJob, stages: Stages) -> pa.Schema:
    few = prepared.plan.splits[:1]
    try:
        schema = schema_of_sample(stages, prepared.source, few)
    except RunError:
        raise
    except Exception as error:  # of code of the user's
        raise RunError(
            f"the sample failed: {type(error).__name__}: {error_message(error)}"
        ) from error
    return pa.ipc.read_schema(pa.py_buffer(schema))


def show(output: str, options: dict[str, Any], file: IO[str]) -> None:
    """Prints the first rows of an output, one line per column; nothing if there are none."""
    ledger = Ledger(Store(output, options))
    for part in sorted(ledger.parts())[:1]:
        with ledger.open(part) as opened:
            batch = next(pq.ParquetFile(opened).iter_batches(_ROWS), None)
        if batch is None:
            continue
        for number in range(batch.num_rows):
            row = {name: _value(batch[name][number]) for name in batch.schema.names}
            print("\n".join(_lines(number, row)), file=file)


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):  # Python has no such time, or no such time zone
        return f"({scalar.type})"


def _lines(number: int, row: dict[str, Any]) -> list[str]:
    # Very long names do not move the values of the others further.
    width = min(max(12, *(len(name) + 2 for name in row)), 32)
    cells = [f"  {name + '  ':<{width}}{_short(value)}" for name, value in row.items()]
    return [f"row {number}", *cells]


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 5 and isinstance(value[0], float):
        return f"[{', '.join(f'{x:.3f}' for x in value[:4])}, … {len(value)} in all]"
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
