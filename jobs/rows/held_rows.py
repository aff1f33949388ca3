"""Rows that a job gets as an object, and not as the path of files."""

from __future__ import annotations

import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.sources.parquet import STORED_ROWS
from pipemill.actors.sources.schemas.unify import find_common_type
from pipemill.actors.storage.store import Store

from pipemill.errors import ConfigError, RunError, StoreError, describe_error

GROUP_ROWS = 1000
_FORMAT = "parquet"
_SHARD_BYTES = 128 * 2**20

# What this process has read from, and can be read once: what is left of it is not all of it.
_begun: list[object] = []


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """How much of an input is enough: to show, to measure, or because the job reads no more.

    Attributes:
        rows: the most rows that are read.
        bytes: after how many bytes reading ends.
    """

    rows: int
    bytes: int = sys.maxsize


@dataclass(frozen=True, kw_only=True)
class WrittenRows:
    """What was written of some rows.

    Attributes:
        format: of the files.
        files: how many there are.
        rows: how many there are; None where only reading the files tells it.
        whole: whether these are all rows.
        digest: of the bytes, if the rows came as bytes.
        bytes: how many these are.
    """

    format: str
    files: int
    rows: int | None
    whole: bool
    digest: str | None = None
    bytes: int | None = None


class HeldRows(ABC):
    """Rows that a job gets as an object.

    Attributes:
        name: what the object is, as in "a pandas.DataFrame".
        snapshot: which of its states was read, if it has several; known when the rows are.
        is_stream: whether only reading the rows tells which they are, perhaps only once. What an
            output stored of a stream is then its input, whatever the stream would give later.
    """

    name: str
    snapshot: str | None = None
    is_stream = False

    @property
    @abstractmethod
    def identity(self) -> str:
        """Return a name for a folder that differs for other rows; a stream's is what it is."""

    @property
    def count(self) -> int | None:
        """Return how many rows there are, if that is known before they are read."""
        return None

    @abstractmethod
    def write(self, store: Store, folder: str, format: str, most: SampleSize | None) -> WrittenRows:
        """Write the rows to files in a folder of a store.

        Args:
            format: what `input.format` says: "auto" or a name.
            most: how much is enough; None for everything.

        Raises:
            ConfigError: rows have values that can't be stored.
            RunError: an error of the object itself.
        """

    def describe(self) -> str:
        """Return a text for the record of a job."""
        return f"{self.name} {self.identity}"


class TableRows(HeldRows):
    """Rows that become Parquet, shard by shard."""

    @abstractmethod
    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows in order, about a thousand at a time."""

    def head(self, rows: int) -> TableRows:
        """Return these rows; only the first, where others would be computed for nothing."""
        return self

    def write(self, store: Store, folder: str, format: str, most: SampleSize | None) -> WrittenRows:
        if format not in ("auto", _FORMAT):
            raise ConfigError(f"input.format is {format}, but {self.name} is no file: leave it out")
        files = rows = size = held = 0
        whole = True
        shard: list[pa.Table] = []
        schema: pa.Schema | None = None
        source = self if most is None else self.head(most.rows)
        for table in _check_types(source.tables(), self.name):
            table = table if most is None else table.slice(0, most.rows - rows)
            joined = _join_schemas(schema, table.schema)
            if shard and (held >= _SHARD_BYTES or joined is None):
                _write_shard(store, f"{folder}/{files:06}{STORED_ROWS}", shard)
                files, shard, held, joined = files + 1, [], 0, None
            schema = joined or table.schema
            shard.append(table)
            rows, size, held = rows + table.num_rows, size + table.nbytes, held + table.nbytes
            if most is not None and (rows >= most.rows or size >= most.bytes):
                whole = self.count == rows
                break
        if shard:
            _write_shard(store, f"{folder}/{files:06}{STORED_ROWS}", shard)
            files += 1
        if not files or (not rows and not table.column_names):
            raise ConfigError(f"{self.name} gave no row, and so no columns: nothing can be done")
        return WrittenRows(format=_FORMAT, files=files, rows=rows, whole=whole)


def _write_shard(store: Store, name: str, tables: list[pa.Table]) -> None:
    sink = io.BytesIO()
    shard = pa.concat_tables(tables, promote_options="default")
    try:
        pq.write_table(shard, sink, row_group_size=GROUP_ROWS)
        pq.read_schema(pa.BufferReader(sink.getbuffer()))  # one may be written and not be read
    except (pa.ArrowNotImplementedError, OSError):
        check_writable(shard.schema, "convert it, or leave it out")
        raise
    store.write(name, sink.getvalue())


def check_writable(schema: pa.Schema, what_to_do: str) -> None:
    """Raise ConfigError for a column that Parquet has no type for, or none that it reads again."""
    for field in schema:
        sink = io.BytesIO()
        try:
            with pq.ParquetWriter(sink, pa.schema([field])):
                pass
            pq.read_table(pa.BufferReader(sink.getvalue()))
        except (pa.ArrowException, OSError):
            raise ConfigError(
                f"column {field.name!r} is {field.type}, which Parquet can't hold: {what_to_do}"
            ) from None


def _join_schemas(shard: pa.Schema | None, table: pa.Schema) -> pa.Schema | None:
    """Return the schema of a file with a further table; None if a value would change its type."""
    if shard is None or shard.metadata != table.metadata:
        return None
    try:
        return pa.unify_schemas([shard, table]).with_metadata(table.metadata)
    except pa.ArrowException:
        return None


def _check_types(tables: Iterator[pa.Table], name: str) -> Iterator[pa.Table]:
    """Yield the tables. Raise ConfigError for a column whose types have nothing in common.

    Tables without rows come last, with the columns that no other has: theirs may be of any type.
    """
    known: dict[str, pa.DataType] = {}
    empty: list[pa.Table] = []
    first = 0
    for table in guard_tables(tables, name):
        if not table.num_rows:
            if not any(table.schema.equals(other.schema) for other in empty):
                empty.append(table)
            continue
        last = first + table.num_rows - 1
        for field in table.schema:
            # A column without values goes with any type.
            is_empty = table[field.name].null_count == table.num_rows
            kind = pa.null() if is_empty else field.type
            before = known.setdefault(field.name, kind)
            common = find_common_type(before, kind)
            if common is None:
                raise ConfigError(
                    f"column {field.name!r} in the rows {first:,} to {last:,} of {name} is {kind}, "
                    f"and was {before} before: give it values of one type"
                )
            known[field.name] = common
        yield table
        first += table.num_rows
    for table in empty:
        new = [column for column in table.column_names if column not in known]
        if new:
            yield table.select(new)
        known.update((column, table.schema.field(column).type) for column in new)


def guard_tables(tables: Iterator[pa.Table], name: str) -> Iterator[pa.Table]:
    """Yield the tables. What reading one raises is a RunError that says after how many rows."""
    rows = 0
    while True:
        try:
            table = next(tables, None)
        except (ConfigError, RunError, StoreError):
            raise
        except Exception as error:  # of the library that the rows are of
            raise RunError(
                f"{name} failed after {rows:,} rows: {describe_error(error)}. None of its rows is "
                "stored: run again"
            ) from error
        if table is None:
            return
        yield table
        rows += table.num_rows


def split_reader(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Yield the rows in tables of about a thousand, after one without rows."""
    yield reader.schema.empty_table()
    for batch in reader:
        for start in range(0, batch.num_rows, GROUP_ROWS):
            yield pa.Table.from_batches([batch.slice(start, GROUP_ROWS)])


def check_unread(rows: object) -> None:
    """Raise ConfigError for an iterator that was passed here before, and note that it was now."""
    if any(rows is other for other in _begun):
        raise ConfigError(
            f"the {type(rows).__name__} was read from before, and the rows that it gave then are "
            "gone: make a new one"
        )
    _begun.append(rows)
