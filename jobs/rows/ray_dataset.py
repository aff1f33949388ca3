"""A `ray.data.Dataset` as input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
from pipemill.actors.ray_columns import make_missing_null

from pipemill.errors import RunError, error_message

from .cell_values import to_storable
from .held_rows import GROUP_ROWS, TableRows

if TYPE_CHECKING:
    import ray.data

_NUMBERS_OR_NULLS = (pa.types.is_null, pa.types.is_integer, pa.types.is_floating)


class RayDatasetRows(TableRows):
    """A `ray.data.Dataset`: its blocks stream through this process.

    Ray promises neither the same rows nor their order when it computes them again.
    """

    name = "a ray.data.Dataset"
    is_stream = True

    def __init__(self, dataset: ray.data.Dataset) -> None:
        self._dataset = dataset

    def head(self, rows: int) -> RayDatasetRows:
        return RayDatasetRows(self._dataset.limit(rows))

    @property
    def identity(self) -> str:
        return "ray.data.Dataset"

    def tables(self) -> Iterator[pa.Table]:
        rows = 0
        others: set[str] = set()  # columns whose values are no numbers
        batches = iter(self._dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
        while True:
            try:
                block = next(batches, None)
            except Exception as error:
                raise RunError(
                    f"the ray.data.Dataset failed after {rows:,} rows: {_find_reason(error)}. None "
                    "of its rows is stored: run again"
                ) from error
            if block is None:
                break
            rows += block.num_rows
            table = _make_missing_null(to_storable(block, "the ray.data.Dataset"), others)
            for start in range(0, table.num_rows, GROUP_ROWS):
                yield table.slice(start, GROUP_ROWS)
        schema = None if rows else self._dataset.schema()
        if schema is not None:
            columns = [
                pa.array([], kind if isinstance(kind, pa.DataType) else pa.null())
                for kind in schema.types
            ]
            yield to_storable(pa.table(columns, names=schema.names), "the ray.data.Dataset")


def _make_missing_null(table: pa.Table, others: set[str]) -> pa.Table:
    """Return nulls for texts and others of which a block has none: Ray stores them as NaN.

    others: columns whose values are no numbers, as the blocks so far show. It grows.
    """
    for place, field in enumerate(table.schema):
        kind = field.type
        if field.name in others:
            table = table.set_column(place, field.name, make_missing_null(table[place]))
        elif not any(is_one(kind) for is_one in _NUMBERS_OR_NULLS):
            others.add(field.name)
    return table


def _find_reason(error: Exception) -> str:
    """Return what user code raised: Ray's message begins with the traceback of the task."""
    message = error_message(error)
    reason = re.search(r"^[\w.]*(?:Error|Exception): .*$", message, re.MULTILINE)
    return reason[0] if reason else f"{type(error).__name__}: {message}"
