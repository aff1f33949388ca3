"""Compute or read a few result rows, and show them so that they fit a terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.batch import Batch, Failure
from pipemill.actors.compute.stages import Stages
from pipemill.actors.output.part_file import append_columns
from pipemill.actors.storage.store import Store

from pipemill.errors import RunError, error_message, explain_missing_library

from .config.job import Job
from .output.ledger import Ledger
from .output.text_table import Block, TextTable, join_blocks
from .planning.find_model import load_failure
from .planning.infer_columns import schema_of_sample
from .planning.prepared_job import PreparedJob
from .planning.sample_rows import sample_rows
from .prepare import prepare_without_output

# Rows of an output that are shown, and characters of a value.
_ROWS, _WIDTH = 3, 60


@dataclass(frozen=True)
class Preview:
    """The first rows of a job as its output would hold them.

    failures: Why rows failed, by their number.
    notes: On columns that have the name of a parameter.
    """

    rows: pa.Table
    failures: dict[int, Failure]
    notes: tuple[str, ...] = ()

    @property
    def all_failed(self) -> bool:
        return bool(self.failures) and len(self.failures) == self.rows.num_rows

    def to_json(self) -> str:
        """Return one line: counts, and the columns with their types."""
        count, dead = self.rows.num_rows, len(self.failures)
        columns = {field.name: str(field.type) for field in self.rows.schema}
        return json.dumps({"rows": count, "done": count - dead, "dead": dead, "columns": columns})

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        blocks: list[Block] = []
        for number, row in enumerate(self.rows.to_pylist()):
            blocks += _row_blocks(number, row)
            if (failure := self.failures.get(number)) is not None:
                blocks.append(f"  dead: {failure.stage}: {failure.error}: {failure.message}")
        return [*blocks, *(f"note: {note}" for note in self.notes)]

    def __str__(self) -> str:
        return join_blocks(self.blocks())


def preview(job: Job, rows: int) -> Preview:
    """Compute the first rows of the input in this process, and write nothing.

    Args:
        job: The job. Its output is ignored.
        rows: How many rows to compute.

    Raises:
        ConfigError: The job can't run.
        RunError: The task's columns follow from its answers, and no sample of rows has any.
    """
    prepared = prepare_without_output(job)
    table = sample_rows(prepared.source, prepared.plan.splits, rows, places=1).rows
    try:
        loaded = prepared.load.loaded()
        stages = prepared.load.stages(loaded)
    except Exception as error:
        raise load_failure(error, job.model.path) from error
    if prepared.asks_sample:
        schema = _infer_schema(prepared, stages)
        stages = prepared.load.stages(replace(loaded, schema=schema))
    with explain_missing_library():
        batch = stages.process(Batch(table))
    assert batch.results is not None
    shown = append_columns(batch.rows.select(prepared.sink.keep), batch.results)
    return Preview(shown, batch.failures, prepared.notes)


def _infer_schema(prepared: PreparedJob, stages: Stages) -> pa.Schema:
    few = prepared.plan.splits[:1]
    try:
        schema = schema_of_sample(stages, prepared.source, few)
    except RunError:
        raise
    except Exception as error:  # from user code
        raise RunError(
            f"the sample failed: {type(error).__name__}: {error_message(error)}"
        ) from error
    return pa.ipc.read_schema(pa.py_buffer(schema))


def read_first_rows(output: str, options: dict[str, Any]) -> list[Block]:
    """Return the first rows of an output, one line per column; nothing if there are none."""
    ledger = Ledger(Store(output, options))
    for part in sorted(ledger.parts())[:1]:
        with ledger.open(part) as opened:
            batch = next(pq.ParquetFile(opened).iter_batches(_ROWS), None)
        if batch is None:
            continue
        blocks: list[Block] = []
        for number in range(batch.num_rows):
            row = {name: _to_python(batch[name][number]) for name in batch.schema.names}
            blocks += _row_blocks(number, row)
        return blocks
    return []


def _to_python(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):  # Python has no such time, or no such time zone
        return f"({scalar.type})"


def _row_blocks(number: int, row: dict[str, Any]) -> list[Block]:
    cells = [(name, _shorten(value)) for name, value in row.items()]
    return [f"row {number}", TextTable(rows=cells, widths=(10,), most=30, indent=2)]


def _shorten(value: Any) -> str:
    if isinstance(value, list) and len(value) > 5 and isinstance(value[0], float):
        return f"[{', '.join(f'{x:.3f}' for x in value[:4])}, … {len(value)} in all]"
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
