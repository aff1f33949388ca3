"""Frames and tables: pandas, polars, pyarrow, and what else speaks Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipemill.errors import ConfigError, describe_error

from .cell_values import check_names, make_column, to_storable
from .content_digest import digest_tables
from .held_rows import GROUP_ROWS, TableRows, check_unread, guard_tables, split_reader

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow.dataset


class FrameRows(TableRows):
    """Rows that are in memory. Their identity is their content."""

    def __init__(self, name: str, table: pa.Table) -> None:
        self.name = name
        self._table = to_storable(table, name)

    @cached_property
    def identity(self) -> str:
        return digest_tables(self.tables())

    @property
    def count(self) -> int:
        return self._table.num_rows

    def tables(self) -> Iterator[pa.Table]:
        if not self.count:  # a slice of a table without columns would have rows
            yield self._table
        for start in range(0, self.count, GROUP_ROWS):
            yield self._table.slice(start, GROUP_ROWS)


class ArrowDatasetRows(TableRows):
    """A `pyarrow.dataset.Dataset`: read once for its digest, and once to be written."""

    def __init__(self, name: str, dataset: pyarrow.dataset.Dataset) -> None:
        self.name, self._dataset = name, dataset

    @cached_property
    def identity(self) -> str:
        return digest_tables(guard_tables(self.tables(), self.name))

    @property
    def count(self) -> int | None:
        try:
            return self._dataset.count_rows()
        except (pa.ArrowException, OSError):  # which reading the rows will say
            return None

    def tables(self) -> Iterator[pa.Table]:
        yield to_storable(self._dataset.schema.empty_table(), self.name)
        for batch in self._dataset.to_batches(batch_size=GROUP_ROWS):
            if batch.num_rows:
                yield to_storable(pa.Table.from_batches([batch]), self.name)


class BatchReaderRows(TableRows):
    """A `pyarrow.RecordBatchReader`, which can be read once."""

    name = "a pyarrow.RecordBatchReader"
    is_stream = True

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader

    @property
    def identity(self) -> str:
        return "RecordBatchReader"

    def tables(self) -> Iterator[pa.Table]:
        check_unread(self._reader)
        for rows in split_reader(self._reader):
            yield to_storable(rows, "the RecordBatchReader")


def convert_pandas(frame: pandas.DataFrame) -> pa.Table:
    """Return a frame as a table; an index with a name is a column."""
    owner = "the pandas.DataFrame"
    if any(name is not None for name in frame.index.names):
        unnamed = [n for n, name in enumerate(frame.index.names) if name is None]
        check_names([*filter(None, frame.index.names), *frame.columns], owner)
        frame = frame.droplevel(unnamed).reset_index() if unnamed else frame.reset_index()
    check_names(frame.columns, owner)
    columns = []
    for name in frame.columns:
        values = frame[name]
        if values.dtype == object:
            columns.append(make_column(name, values.tolist(), nan_is_null=True))
            continue
        try:
            array = pa.Array.from_pandas(values)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise _explain_refusal(name, owner, values.dtype, error) from None
        columns.append(array)
    return pa.table(columns, names=list(frame.columns))


def collect_polars(frame: polars.LazyFrame) -> pa.Table:
    """Return what a lazy frame computes as a table. Raises ConfigError."""
    try:
        collected = frame.collect()
    except BaseException as error:  # polars' panics are no Exceptions
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ConfigError(
            f"the polars.LazyFrame can't be collected: {describe_error(error)}"
        ) from None
    return convert_polars(collected)


def convert_polars(frame: polars.DataFrame) -> pa.Table:
    """Return a frame as a table."""
    columns = []
    for series in frame.get_columns():
        if str(series.dtype) == "Object":
            columns.append(make_column(series.name, series.to_list()))
            continue
        try:
            columns.append(series.to_arrow())
        except BaseException as error:  # polars' panics are no Exceptions
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise _explain_refusal(
                series.name, "the polars.DataFrame", series.dtype, error
            ) from None
    return pa.table(columns, names=frame.columns)


def convert_array(values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return texts as a table of one column, and structs as one of their fields."""
    if pa.types.is_struct(values.type):
        return pa.Table.from_struct_array(values)
    return pa.table({"text": values})


def convert_arrow(value: Any) -> pa.Table:
    """Return what exports an Arrow stream as a table."""
    if isinstance(value, pa.Table):
        return value
    try:
        return pa.table(value)
    except Exception as error:  # of whatever library it is
        raise ConfigError(
            f"the {type(value).__name__} can't be read: {describe_error(error)}"
        ) from None


def _explain_refusal(name: object, owner: str, kind: object, error: BaseException) -> ConfigError:
    return ConfigError(
        f"column {name!r} of {owner} is {kind}, which can't be stored "
        f"({' '.join(str(error).split())}): convert it to texts, numbers or times"
    )
