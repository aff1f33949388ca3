"""How each format is inspected, cut into splits, and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipemill.errors import ConfigError

from ..batch import Batch
from ..split import Split
from ..storage.backoff import retry_on_driver, retry_with_backoff
from ..storage.listing import InputFile
from ..storage.partitions import is_partition_field, partition_fields, partition_values
from .arrow import ArrowSource
from .csv import CsvSource
from .files import FilesSource
from .jsonl import JsonlSource
from .parquet import ParquetSource
from .reading import Reading
from .schemas.declared_types import DeclaredSource
from .split_size import SplitRange
from .text import TextSource
from .webdataset import WebDatasetSource


class Source(Protocol):
    """A format. `columns` are those to read; None before they are known."""

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        """The columns of all files together."""

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        """The pieces of the files, in order, none longer than a split should be."""

    def read(self, split: Split) -> Batch:
        """The rows of a split, with the schema of the plan. Raises StoreError."""


# Of files of text, whose values have the types that are asked for.
_TEXTS: dict[str, Callable[[dict[str, Any], pa.Schema | None, Reading], Source]] = {
    "jsonl": JsonlSource,
    "csv": CsvSource,
    "text": TextSource,
}
_SOURCES: dict[str, Callable[[dict[str, Any], pa.Schema | None], Source]] = {
    "parquet": ParquetSource,
    "arrow": ArrowSource,
    "files": FilesSource,
    "webdataset": WebDatasetSource,
}


@dataclass(frozen=True)
class _Reader:
    """A source that reads again while its store is away, and adds what folders name.

    schema: the columns to read, those that folders name last.
    """

    source: Source
    schema: pa.Schema | None

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        if isinstance(self.source, JsonlSource) and all(map(_is_empty, files)):
            return pa.schema([])
        schema = retry_on_driver(lambda: self.source.inspect(files), "the input")
        added = partition_fields([file.partitions for file in files], schema.names)
        return pa.schema([*schema, *added], metadata=schema.metadata) if added else schema

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        return retry_on_driver(lambda: self.source.cut(files, rows_per_part, limit), "the input")

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        if not split.path:  # an input without rows
            return Batch(self.schema.empty_table())
        batch = retry_with_backoff(lambda: self.source.read(split), split.path)
        for field in filter(is_partition_field, self.schema):
            files = split.files()
            values = partition_values(field, [file.path for file in files])
            if len(files) == 1:
                values = pa.repeat(values[0], batch.rows.num_rows)
            batch.rows = batch.rows.append_column(field.name, values)
        return batch


def _is_empty(file: InputFile) -> bool:
    # A web server may not tell how long a file is.
    return not file.size and not file.path.startswith("http")


def open_source(
    format: str,
    options: Mapping[str, Any],
    schema: pa.Schema | None = None,
    reading: Reading | None = None,
) -> Source:
    """Open a format's files. Raises ConfigError for what the format can't be read with.

    schema: the columns to read; None before they are known.
    """
    reading = reading or Reading()
    read = schema and pa.schema([f for f in schema if not is_partition_field(f)])
    if format in _TEXTS:
        return _Reader(_TEXTS[format](dict(options), read, reading), schema)
    if reading.encoding is not None:
        raise ConfigError(
            f"input.encoding is of {', '.join(_TEXTS)}; the input is {format}, which has none"
        )
    if not reading.types:
        return _Reader(_SOURCES[format](dict(options), read), schema)
    if format not in ("parquet", "arrow"):
        raise ConfigError(
            f"input.schema is of {', '.join(_TEXTS)}, parquet and arrow; the columns of {format} "
            "have the types that they have"
        )
    return _Reader(DeclaredSource(_SOURCES[format], dict(options), read, reading), schema)
