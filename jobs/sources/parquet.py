"""Parquet: splits are row ranges."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.batch import Batch

from ..errors import ConfigError
from ..inputs import InputFile
from ..storage import open_filesystem
from .ranges import Range, even_ranges, rows_per_split

_THREADS = 16
_READ_ROWS = 4096


@dataclass
class ParquetSource:
    options: dict[str, Any]
    schema: pa.Schema | None = None

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        footers = self._footers(files)
        schema = footers[0].schema.to_arrow_schema().remove_metadata()
        for file, footer in zip(files, footers, strict=True):
            own = footer.schema.to_arrow_schema().remove_metadata()
            if own.names != schema.names and set(own.names) != set(schema.names):
                odd = set(own.names) ^ set(schema.names)
                raise ConfigError(
                    f"{file.path} and {files[0].path} have not the same columns: "
                    f"{', '.join(sorted(odd))} is in one of them only"
                )
            try:
                schema = pa.unify_schemas([schema, own], promote_options="permissive")
            except pa.ArrowTypeError as error:
                raise ConfigError(
                    f"{file.path} and {files[0].path} differ in a column's type: {error}"
                ) from None
        # Arrow takes rows out of no view column; the same values as text and bytes.
        plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
        return pa.schema([f.with_type(plain.get(f.type, f.type)) for f in schema])

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[list[Range]]:
        footers = self._footers(files)
        counts = [footer.num_rows for footer in footers]
        size = sum(_uncompressed(footer) for footer in footers)
        total = sum(counts)
        step = rows_per_part or rows_per_split(total, size / max(total, 1))
        left = total if limit is None else limit
        ranges = []
        for count in counts:
            taken = min(count, left)
            left -= taken
            ranges.append([Range(a, b, b - a) for a, b in even_ranges(taken, step)])
        return ranges

    def read(self, split: dict[str, Any]) -> Batch:
        assert self.schema is not None
        filesystem, path = open_filesystem(split["path"], self.options)
        start, stop = split["start"], split["stop"]
        with filesystem.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            rows = pa.concat_tables(_rows(parquet, start, stop, self.schema))
        if rows.num_rows != stop - start:
            raise ValueError(f"{split['path']}: rows {start} to {stop} are not all there")
        return Batch(rows.combine_chunks())

    def _footers(self, files: list[InputFile]) -> list[pq.FileMetaData]:
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(self._footer, files))

    def _footer(self, file: InputFile) -> pq.FileMetaData:
        filesystem, path = open_filesystem(file.path, self.options)
        try:
            with filesystem.open(path, "rb") as opened:
                return pq.read_metadata(opened)
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"can't read {file.path} as Parquet: {error}") from None


def _rows(parquet: pq.ParquetFile, start: int, stop: int, schema: pa.Schema) -> list[pa.Table]:
    """Rows `start` to `stop`, decoding only the row groups that hold them, a bit at a time."""
    tables = [schema.empty_table()]
    groups: list[int] = []
    first, position = 0, 0
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        if position < stop and position + count > start:
            first = position if not groups else first
            groups.append(group)
        position += count
    batches = parquet.iter_batches(_READ_ROWS, row_groups=groups, columns=schema.names)
    for batch in batches:
        here = batch.slice(max(start - first, 0), max(stop - max(start, first), 0))
        if here.num_rows:
            table = pa.Table.from_batches([here]).select(schema.names)
            tables.append(table.replace_schema_metadata().cast(schema))
        first += batch.num_rows
        if first >= stop:
            break
    return tables


def _uncompressed(footer: pq.FileMetaData) -> int:
    return sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
