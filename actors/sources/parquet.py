"""Parquet: splits are row ranges."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipemill.errors import ConfigError

from ..batch import Batch
from ..split import Split
from ..storage.backoff import is_transient, retry_on_driver
from ..storage.filesystem import open_filesystem
from ..storage.input_file import InputFile
from .base import FileSource
from .schemas.file_schemas import checked, fitted, null_rows, plain_column, shaped
from .schemas.unify import extremes, unify_columns
from .split_ranges import SplitRange, row_ranges

_THREADS = 16
_READ_ROWS = 4096

Group = tuple[
    int, int, int
]  # a row group's number, and the first and last of its rows: [first, last)


@dataclass
class ParquetSource(FileSource):
    """Splits are row ranges."""

    name = "parquet"
    suffixes = (".parquet", ".pq")
    values = "typed"
    missing_columns = "unread"

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        found = {
            file: footer
            for file, footer in zip(files, self._footers(files), strict=True)
            if footer is not None
        }
        return unify_columns(
            list(found),
            [footer.schema.to_arrow_schema() for footer in found.values()],
            lambda file, name: _read_extremes(found[file], name) or self._extremes(file, name),
        )

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        footers = self._footers(files)
        counts = [None if footer is None else footer.num_rows for footer in footers]
        size = sum(_uncompressed(footer) for footer in footers if footer is not None)
        return list(row_ranges(files, counts, size, rows_per_part, limit))

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        filesystem, path = open_filesystem(split.path, self.options)
        start, stop = split.start, split.stop
        if stop < 0:
            return self._unreadable(split)
        with filesystem.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            groups = _groups(parquet.metadata, start, stop)
            try:
                rows, failed = _rows(parquet, groups, self.schema), dict[int, BaseException]()
            except (OSError, pa.ArrowException) as error:
                if is_transient(error):
                    raise
                rows, failed = _readable(parquet, groups, self.schema)
        if rows.num_rows != stop - start:
            raise ValueError(f"{split.path}: rows {start} to {stop} are not all there")
        batch = Batch(rows.combine_chunks())
        for row, reason in failed.items():
            batch.add_failure("read", row, reason)
        return batch

    def _unreadable(self, split: Split) -> Batch:
        """One dead row for a whole file: how many it had nobody knows."""
        assert self.schema is not None
        reason = self._footer(split.file)
        if not isinstance(reason, ConfigError):
            raise ValueError(
                f"{split.path} could not be read when it was planned, and can be now: "
                "name another output"
            )
        batch = Batch(null_rows(self.schema, 1))
        batch.add_failure("read", 0, reason)
        return batch

    def _footers(self, files: list[InputFile]) -> list[pq.FileMetaData | None]:
        """None for a file that is no Parquet. Raises ConfigError if all are none."""
        with ThreadPoolExecutor(_THREADS) as threads:
            found = list(threads.map(self._footer, files))
        errors = [footer for footer in found if isinstance(footer, ConfigError)]
        if errors and len(errors) == len(found):
            raise errors[0]
        return [None if isinstance(footer, ConfigError) else footer for footer in found]

    def _footer(self, file: InputFile) -> pq.FileMetaData | ConfigError:
        """Raises ConfigError where it is not the file that is to blame."""
        filesystem, path = open_filesystem(file.path, self.options)

        def read() -> pq.FileMetaData:
            with filesystem.open(path, "rb") as opened:
                footer = pq.read_metadata(opened)
                checked(footer.schema.to_arrow_schema())
                return footer

        try:
            # One by one: of many thousands some may fail in every round.
            return retry_on_driver(read, file.path)
        except (OSError, ValueError, pa.ArrowException) as error:
            said = ConfigError(f"can't read {file.path} as Parquet: {error}")
            if isinstance(error, PermissionError):
                raise said from None
            return said

    def _extremes(self, file: InputFile, name: str) -> tuple[int, int] | None:
        """By reading the column. None where that can't be done: its rows will say why."""
        filesystem, path = open_filesystem(file.path, self.options)

        def read() -> tuple[int, int] | None:
            with filesystem.open(path, "rb") as opened:
                column = pq.ParquetFile(opened).read(columns=[name]).column(name)
                return extremes(plain_column(column))

        try:
            return retry_on_driver(read, file.path)
        except (OSError, ValueError, pa.ArrowException):
            return None


def _read_extremes(footer: pq.FileMetaData, name: str) -> tuple[int, int] | None:
    """By the footer, if it tells them of all row groups as whole numbers."""
    found: list[int] = []
    for group in map(footer.row_group, range(footer.num_row_groups)):
        columns = map(group.column, range(group.num_columns))
        told = next((c.statistics for c in columns if c.path_in_schema == name), None)
        if told is None or not told.has_min_max or not isinstance(told.min, int):
            return None
        found += [told.min, told.max]
    return (min(found), max(found)) if found else None


def _groups(footer: pq.FileMetaData, start: int, stop: int) -> list[Group]:
    """The row groups that hold rows `start` to `stop`, and which of their rows those are."""
    found, position = [], 0
    for number in range(footer.num_row_groups):
        count = footer.row_group(number).num_rows
        first, last = max(start - position, 0), min(stop - position, count)
        if first < last:
            found.append((number, first, last))
        position += count
    return found


def _rows(parquet: pq.ParquetFile, groups: list[Group], schema: pa.Schema) -> pa.Table:
    """Rows of neighbouring row groups, in the types of the input."""
    decoded = (shaped(table, schema) for table in _decode(parquet, groups, schema.names))
    return pa.concat_tables([schema.empty_table(), *decoded])


def _decode(parquet: pq.ParquetFile, groups: list[Group], columns: list[str]) -> Iterator[pa.Table]:
    """A bit at a time, up to the last row that is wanted, in the types of the file.

    Of the columns those that the file has.
    """
    names = parquet.schema_arrow.names
    columns = [name for name in columns if name in names]
    first = groups[0][1] if groups else 0
    left = sum(last - first for _, first, last in groups)
    numbers = [number for number, _, _ in groups]
    for batch in parquet.iter_batches(_READ_ROWS, row_groups=numbers, columns=columns):
        skipped = min(first, batch.num_rows)
        here = batch.slice(skipped, left)
        first -= skipped
        left -= here.num_rows
        if here.num_rows:
            table = pa.Table.from_batches([here]).select(columns)
            yield table.replace_schema_metadata()
        if not left:
            break


def _readable(
    parquet: pq.ParquetFile, groups: list[Group], schema: pa.Schema
) -> tuple[pa.Table, dict[int, BaseException]]:
    """The rows of the groups that can be decoded; those of others are null, with the reason.

    So is a row with a value that the column's type, which is that of all files, does not hold.
    """
    tables: list[pa.Table] = [schema.empty_table()]
    failed: dict[int, BaseException] = {}
    at = 0
    for number, first, last in groups:
        try:
            rows = pa.concat_tables(_decode(parquet, [(number, first, last)], schema.names))
        except (OSError, pa.ArrowException) as error:
            if is_transient(error):
                raise
            tables.append(null_rows(schema, last - first))
            reason = type(error)(f"row group {number} can't be decoded: {error}")
            failed.update(dict.fromkeys(range(at, at + last - first), reason))
        else:
            rows, wrong = fitted(rows, schema)
            tables.append(rows)
            failed.update({at + row: error for row, error in wrong})
        at += last - first
    return pa.concat_tables(tables), failed


def _uncompressed(footer: pq.FileMetaData) -> int:
    return sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
