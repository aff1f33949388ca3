"""Compute or read a few result rows, and show them so that they fit a terminal."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.batch import Batch, Failure
from pipemill.actors.compute.stages import Stages
from pipemill.actors.output.part_file import append_columns
from pipemill.actors.storage.store import Store
from pipemill.pipelines.library_settings import keep_settings

from pipemill.errors import RunError, error_message, explain_interrupt, explain_missing_library

from .config.check_arguments import check_count
from .config.job import Job
from .config.load import build_job
from .config.sections import Sections, takes_sections
from .output.ledger import Ledger
from .output.stored_rows import sample_input
from .output.text_table import Block, Shown, TextTable, render_html
from .planning.find_model import load_failure
from .planning.prepared_job import PreparedJob
from .planning.sampling.infer_columns import infer_sample_schema
from .planning.sampling.sample_rows import sample_rows
from .prepare import prepare_without_output

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Unpack

# Rows of an output that are shown, and characters of a value.
_ROWS, _WIDTH = 3, 60


@dataclass(frozen=True)
class Preview(Shown):
    """The first rows of a job as its output would hold them.

    Attributes:
        table: The rows; the columns of the task are null where a row failed.
        failures: Why rows failed, by their number.
        notes: On columns that have the name of a parameter.
    """

    table: pa.Table
    failures: dict[int, Failure]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Return how many rows were computed."""
        return self.table.num_rows

    @property
    def dead(self) -> int:
        """Return how many of the rows failed."""
        return len(self.failures)

    @property
    def done(self) -> int:
        """Return how many of the rows have an answer."""
        return self.rows - self.dead

    @property
    def all_failed(self) -> bool:
        """Return whether there are rows, and none of them has an answer."""
        return 0 < self.rows == self.dead

    def to_arrow(self) -> pa.Table:
        """Return the rows."""
        return self.table

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a frame."""
        return self.table.to_pandas()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Let `pyarrow.table`, polars and others take the rows."""
        return self.table.__arrow_c_stream__(requested_schema)

    def to_json(self) -> str:
        """Return one line: counts, and the columns with their types."""
        columns = {field.name: str(field.type) for field in self.table.schema}
        counts = {"rows": self.rows, "done": self.done, "dead": self.dead}
        return json.dumps({**counts, "columns": columns})

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        blocks: list[Block] = []
        for number, row in enumerate(_list_rows(self.table)):
            blocks += _make_row_blocks(number, row)
            if number in self.failures:
                blocks.append(f"  dead: {self._find_reason(number)}")
        return [*blocks, *self._list_notes()]

    def _repr_html_(self) -> str:
        names = self.table.schema.names
        rows = [[_shorten(row[name]) for name in names] for row in _list_rows(self.table)]
        if self.failures:
            names = [*names, "dead"]
            rows = [[*row, self._find_reason(number)] for number, row in enumerate(rows)]
        return render_html([TextTable(header=names, rows=rows), *self._list_notes()])

    def _find_reason(self, number: int) -> str:
        """Return why a row failed; nothing if it did not."""
        return str(self.failures.get(number, ""))

    def _list_notes(self) -> list[str]:
        return [f"note: {note}" for note in self.notes]


@takes_sections
def preview(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None = None,
    *,
    rows: int = 5,
    settings: list[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    **sections: Unpack[Sections],
) -> Preview:
    """Compute the first rows of the input in this process, and write nothing.

    The other arguments are those of `run`. The job needs no output, and its output is ignored.

    Args:
        rows: How many rows to compute.

    Returns:
        The rows as the output would hold them, and why some failed.

    Raises:
        ConfigError: The job can't run.
        RunError: The task's columns follow from its answers, and no sample of rows has any.
        RunInterrupted: A KeyboardInterrupt, if it was interrupted.
    """
    check_count(rows=rows)
    job = build_job(config, settings or [], columns or {}, sections, needs_output=False)
    with explain_interrupt("interrupted"), keep_settings(), sample_input(job) as sample:
        return _preview(sample.job, rows)


def _preview(job: Job, rows: int) -> Preview:
    prepared = prepare_without_output(job)
    sample = sample_rows(prepared.source, prepared.plan.splits, rows, places=1)
    batch = _compute_rows(prepared, sample.to_batch())
    assert batch.results is not None
    shown = append_columns(batch.rows.select(prepared.sink.keep), batch.results)
    return Preview(shown, batch.failures, prepared.notes)


def _compute_rows(prepared: PreparedJob, rows: Batch) -> Batch:
    """Load a job's tasks into this process, and compute rows of its input.

    Raises:
        ConfigError, RunError: A model does not load, or the task's columns can't be inferred.
    """
    try:
        loaded = prepared.task.loaded() if prepared.asks_sample else None
        stages = prepared.load() if loaded is None else prepared.task.stages(loaded)
    except Exception as error:
        raise load_failure(error, *prepared.load.models) from error
    if loaded is not None:
        schema = _infer_schema(prepared, prepared.task.stages(loaded))
        stages = prepared.task.stages(replace(loaded, schema=schema))
    with explain_missing_library():
        return stages.process(rows)


def _infer_schema(prepared: PreparedJob, stages: Stages) -> pa.Schema:
    few = prepared.plan.splits[:1]
    try:
        schema = infer_sample_schema(stages, prepared.source, few)
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
        for number, row in enumerate(_list_rows(batch)):
            blocks += _make_row_blocks(number, row)
        return blocks
    return []


def _list_rows(table: pa.Table | pa.RecordBatch) -> Iterator[dict[str, Any]]:
    for number in range(table.num_rows):
        yield {name: _to_python(table[name][number]) for name in table.schema.names}


def _to_python(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):  # Python has no such time, or no such time zone
        return f"({scalar.type})"


def _make_row_blocks(number: int, row: dict[str, Any]) -> list[Block]:
    cells = [(name, _shorten(value)) for name, value in row.items()]
    return [f"row {number}", TextTable(rows=cells, widths=(10,), most=30, indent=2)]


def _shorten(value: Any) -> str:
    if isinstance(value, list) and len(value) > 5 and isinstance(value[0], float):
        return f"[{', '.join(f'{x:.3f}' for x in value[:4])}, … {len(value)} in all]"
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
