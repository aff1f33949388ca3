"""Read Parquet. Splits are row ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipemill.errors import ConfigError

from ..batch import Batch
from ..split import Split
from ..storage.backoff import is_of_store
from ..storage.filesystem import open_filesystem
from ..storage.input_file import InputFile
from ..storage.parallel import map_parallel
from .bad_file import make_unread_batch, read_or_explain
from .base import FileSource
from .parsing.parquet_file import open_as_stored, open_parquet, read_footer_schema
from .schemas.file_schemas import (
    cast_rows,
    cast_valid_rows,
    check_names,
    explain_lacking,
    holds_dictionary,
    make_null_rows,
    simplify_column,
)
from .schemas.hf_features import keep_features
from .schemas.unify import find_extremes, unify_columns
from .split_ranges import SplitRange, cut_rows

_READ_ROWS = 4096
# Of files that hold the rows of an object in Python. Not that of Parquet: readers that look into
# every folder would take them for parts.
STORED_ROWS = ".rows"

# The number of a row group, and the range of its rows to read.
Group = tuple[int, int, int]


class _Footer(NamedTuple):
    """What planning takes from a footer; a million whole ones would take gigabytes.

    schema: with no other metadata than the features of `datasets`.
    bytes: of the rows, as in memory.
    """

    schema: pa.Schema
    rows: int
    bytes: int


@dataclass
class ParquetSource(FileSource):
    """Splits are row ranges."""

    name = "parquet"
    suffixes = (".parquet", ".pq", ".parq")
    values = "typed"
    missing_columns = "unread"

    # The files that `infer_schema` read last, and their footers: their splits are planned next.
    _last_read: tuple[list[InputFile], list[_Footer | None]] = field(
        default=([], []), init=False, repr=False, compare=False
    )

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        footers = self._read_footers(files)
        self._last_read = files, footers
        good = {file: f.schema for file, f in zip(files, footers, strict=True) if f is not None}
        return unify_columns(list(good), list(good.values()), self._find_extremes, self._has_values)

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> Iterable[SplitRange]:
        listed, footers = self._last_read
        if listed != files:
            footers = self._read_footers(files)
        counts = [None if footer is None else footer.rows for footer in footers]
        size = sum(footer.bytes for footer in footers if footer is not None)
        return cut_rows(files, counts, size, rows_per_part, limit, self.most_rows)

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        filesystem, path = open_filesystem(split.path, self.options)
        start, stop = split.start, split.stop
        if stop < 0:
            return make_unread_batch(self.schema, split.path, self._read_footer(split.file))
        with filesystem.open(path, "rb") as file:
            parquet = open_parquet(file)
            groups = _find_groups(parquet.metadata, start, stop)
            try:
                rows, failed = _read_rows(parquet, groups, self.schema), dict[int, BaseException]()
            except (OSError, pa.ArrowException) as error:
                if is_of_store(error):
                    raise
                rows, failed = _read_valid_rows(parquet, file, groups, self.schema)
        if rows.num_rows != stop - start:
            raise ValueError(f"{split.path} lacks some of the planned rows {start} to {stop}")
        where = "these rows" if split.path.endswith(STORED_ROWS) else split.path
        lacking = explain_lacking(self.schema, parquet.schema_arrow.names, where)
        batch = Batch(rows.combine_chunks(), lacking=lacking)
        self.count_new_columns(batch, parquet.schema_arrow.names)
        for row, reason in failed.items():
            batch.add_failure("read", row, reason)
        return batch

    def _read_footers(self, files: list[InputFile]) -> list[_Footer | None]:
        """Return what footers say, None for a bad file. Raises ConfigError if all are bad."""
        schemas: dict[pa.Schema, pa.Schema] = {}  # a million files may share one

        def read(file: InputFile) -> _Footer | ConfigError:
            footer = self._read_footer(file)
            if isinstance(footer, ConfigError):
                return footer
            schema = keep_features(read_footer_schema(footer))
            groups = map(footer.row_group, range(footer.num_row_groups))
            size = sum(group.total_byte_size for group in groups)
            return _Footer(schemas.setdefault(schema, schema), footer.num_rows, size)

        taken: list[_Footer | None] = []
        error: ConfigError | None = None
        for one in map_parallel(read, files):
            error = error or (one if isinstance(one, ConfigError) else None)
            taken.append(None if isinstance(one, ConfigError) else one)
        if error is not None and all(one is None for one in taken):
            raise error
        return taken

    def _read_footer(self, file: InputFile) -> pq.FileMetaData | ConfigError:
        """Return a footer, or the error of a bad file. Raises ConfigError if it is not at fault."""
        filesystem, path = open_filesystem(file.path, self.options)

        def read() -> pq.FileMetaData:
            with filesystem.open(path, "rb") as opened:
                footer = pq.read_metadata(opened)
                check_names(footer.schema.to_arrow_schema())
                return footer

        return read_or_explain(read, file.path, "Parquet")

    def _find_extremes(self, file: InputFile, name: str) -> tuple[int, int] | None:
        """Find the extremes of a column; None if it can't be read: its rows will fail."""
        footer = self._read_footer(file)
        stored = None if isinstance(footer, ConfigError) else _find_extremes_in(footer, name)
        return stored or self._read_extremes(file, name)

    def _read_extremes(self, file: InputFile, name: str) -> tuple[int, int] | None:
        column = self._read_column(file, name)
        return None if column is None else find_extremes(column)

    def _has_values(self, file: InputFile, name: str) -> bool:
        """Tell whether a column has a value, or can't be read."""
        footer = self._read_footer(file)
        if isinstance(footer, ConfigError):
            return True
        if not footer.num_rows:
            return False
        stored = [chunk.statistics for chunk in _find_chunks(footer, name)]
        if stored and all(s is not None and s.has_null_count for s in stored):
            return any(s.num_values for s in stored)
        column = self._read_column(file, name)
        return column is None or column.null_count < len(column)

    def _read_column(self, file: InputFile, name: str) -> pa.ChunkedArray | None:
        filesystem, path = open_filesystem(file.path, self.options)

        def read() -> pa.ChunkedArray:
            with filesystem.open(path, "rb") as opened:
                return simplify_column(open_parquet(opened).read(columns=[name]).column(name))

        column = read_or_explain(read, file.path, "Parquet")
        return None if isinstance(column, ConfigError) else column


def _find_extremes_in(footer: pq.FileMetaData, name: str) -> tuple[int, int] | None:
    """Return the extremes in a footer, if it has them for all row groups as whole numbers."""
    if not pa.types.is_integer(footer.schema.to_arrow_schema().field(name).type):
        return None
    values: list[int] = []
    for chunk in _find_chunks(footer, name):
        if chunk.statistics is None or not chunk.statistics.has_min_max:
            return None
        values += [chunk.statistics.min, chunk.statistics.max]
    return (min(values), max(values)) if values else None


def _find_chunks(footer: pq.FileMetaData, name: str) -> list[pq.ColumnChunkMetaData]:
    """Return a column's chunk of each row group; none of a list or struct, which has several."""
    groups = map(footer.row_group, range(footer.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    return [chunk for chunk in chunks if chunk.path_in_schema == name]


def _find_groups(footer: pq.FileMetaData, start: int, stop: int) -> list[Group]:
    """Return the row groups that hold the rows `start` to `stop`."""
    groups, position = [], 0
    for number in range(footer.num_row_groups):
        count = footer.row_group(number).num_rows
        first, last = max(start - position, 0), min(stop - position, count)
        if first < last:
            groups.append((number, first, last))
        position += count
    return groups


def _read_rows(parquet: pq.ParquetFile, groups: list[Group], schema: pa.Schema) -> pa.Table:
    """Read rows of adjacent row groups, in the types of the schema."""
    decoded = (cast_rows(table, schema) for table in _decode(parquet, groups, schema.names))
    return pa.concat_tables([schema.empty_table(), *decoded])


def _decode(parquet: pq.ParquetFile, groups: list[Group], columns: list[str]) -> Iterator[pa.Table]:
    """Yield the rows in tables of a few, in the types of the file, with the columns that it has."""
    names = parquet.schema_arrow.names
    columns = [name for name in columns if name in names]
    first = groups[0][1] if groups else 0
    left = sum(last - first for _, first, last in groups)
    if not columns:  # of which Arrow makes no rows
        yield pa.table({"": pa.nulls(left)}).select([])
        return
    numbers = [number for number, _, _ in groups]
    for batch in parquet.iter_batches(_READ_ROWS, row_groups=numbers, columns=columns):
        skipped = min(first, batch.num_rows)
        rows = batch.slice(skipped, left)
        first -= skipped
        left -= rows.num_rows
        if rows.num_rows:
            table = pa.Table.from_batches([rows]).select(columns)
            yield table.replace_schema_metadata()
        if not left:
            break


def _decode_group(
    parquet: pq.ParquetFile, file: IO[bytes], group: Group, columns: list[str]
) -> pa.Table:
    try:
        return pa.concat_tables(_decode(parquet, [group], columns))
    except pa.ArrowInvalid:
        if not any(map(holds_dictionary, parquet.schema_arrow.types)):
            raise
        return pa.concat_tables(_decode(open_as_stored(file), [group], columns))


def _read_valid_rows(
    parquet: pq.ParquetFile, file: IO[bytes], groups: list[Group], schema: pa.Schema
) -> tuple[pa.Table, dict[int, BaseException]]:
    """Read the rows that can be decoded and cast; return nulls and errors for the others."""
    tables: list[pa.Table] = [schema.empty_table()]
    failed: dict[int, BaseException] = {}
    at = 0
    for number, first, last in groups:
        try:
            rows = _decode_group(parquet, file, (number, first, last), schema.names)
        except (OSError, pa.ArrowException) as error:
            if is_of_store(error):
                raise
            tables.append(make_null_rows(schema, last - first))
            reason = type(error)(f"row group {number} can't be decoded: {error}")
            failed.update(dict.fromkeys(range(at, at + last - first), reason))
        else:
            rows, wrong = cast_valid_rows(rows, schema)
            tables.append(rows)
            failed.update({at + row: error for row, error in wrong})
        at += last - first
    return pa.concat_tables(tables), failed
