"""Read what some parts of an output hold: texts, labels, scores and vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.split import Split

from ..planning.columns import list_kept_columns
from .answer_statistics import count_lengths

if TYPE_CHECKING:
    from ..output.job_record import JobRecord
    from ..output.ledger import Ledger
    from ..output.split_plan import Plan

FILES, _VECTOR_FILES = 200, 4  # parts that are read for their labels, and for their vectors


def take_some(done: Sequence[Split], most: int) -> Sequence[Split]:
    """Return at most so many splits, at equal distances."""
    return done[:: max(-(-len(done) // most), 1)]


def _list_kept(record: JobRecord, plan: Plan) -> set[str]:
    keep = record.job["output"]["keep"]
    return set(list_kept_columns(keep, plan.schema) if keep == "all" else keep)


def count_text_lengths(
    ledger: Ledger, record: JobRecord, plan: Plan, done: Sequence[Split]
) -> dict[str, Any] | None:
    """Return how long the texts of some parts are; None if the parts do not hold the text."""
    columns = (record.job.get("tasks") or [{}])[0].get("columns", {})
    name = {**record.job["input"]["columns"], **columns}.get("text", "text")
    places = list(plan.schema.get_all_field_indices(name or ""))
    kept = _list_kept(record, plan)
    if name not in kept or len(places) != 1:
        return None
    if not pa.types.is_string(plan.schema.field(places[0]).type):
        return None
    sample = take_some(done, FILES)
    tables = ledger.map_parallel(lambda s: _read_columns(ledger, s.part, (name,)), sample)
    # The task may add a column of that name; then the input's was renamed.
    names = (name,) if f"input_{name}" in kept else (f"input_{name}", name)
    found = [[table[n] for n in names if n in table.column_names] for table in tables]
    classes = count_lengths(columns[0] for columns in found if columns)
    most = max((count for _, count in classes), default=1)
    if not classes:
        return None
    return {
        "name": name,
        "classes": [(f"{top:,}", count, 100 * count / most) for top, count in classes],
    }


def read_answers(
    ledger: Ledger, done: Sequence[Split], record: JobRecord, plan: Plan, prefix: str
) -> Iterator[pa.Table]:
    """Yield a task's labels, scores and vectors of some parts. prefix: of its columns."""
    kept = _list_kept(record, plan)
    for own_names, most in ((("label", "score"), FILES), (("embedding",), _VECTOR_FILES)):
        names = tuple(prefix + name for name in own_names)
        sample = take_some(done, most)
        for table in ledger.map_parallel(lambda s: _read_columns(ledger, s.part, names), sample):  # noqa: B023
            # A column of the input that has such a name was renamed, if the task adds one.
            own = [n for n in table.column_names if n in names]
            renamed = {n for n in own if f"input_{n}" in {*table.column_names} - kept}
            own = [n for n in own if n not in kept or n in renamed]
            yield table.select(own).rename_columns([n.removeprefix(prefix) for n in own])


def _read_columns(ledger: Ledger, name: str, columns: tuple[str, ...]) -> pa.Table:
    """Return those of the columns, and of the input's with such a name, that a part has."""
    try:
        with ledger.filesystem.open(f"{ledger.root}/{name}", "rb") as file:
            parquet = pq.ParquetFile(file)
            there = parquet.schema_arrow.names
            return parquet.read(
                [n for n in there if n in columns or n.removeprefix("input_") in columns]
            )
    except (FileNotFoundError, pa.ArrowException):
        return pa.table({})  # it is gone or damaged
