"""Parquet: splits are row ranges."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.batch import Batch

from ..errors import ConfigError
from ..listing import InputFile
from ..storage import open_filesystem
from .ranges import Piece, row_ranges
from .schemas import common_schema

_THREADS = 16
_READ_ROWS = 4096


@dataclass
class ParquetSource:
    options: dict[str, Any]
    schema: pa.Schema | None = None

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        footers = self._footers(files)
        return common_schema(files, [footer.schema.to_arrow_schema() for footer in footers])

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[Piece]:
        footers = self._footers(files)
        counts = [footer.num_rows for footer in footers]
        size = sum(_uncompressed(footer) for footer in footers)
        return list(row_ranges(files, counts, size, rows_per_part, limit))

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
