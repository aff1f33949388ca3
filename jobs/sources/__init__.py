"""How each format is inspected, cut into splits, and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
from pipemill.actors.batch import Batch

from ..errors import ConfigError
from ..listing import InputFile
from ..patience import answered, patiently
from .arrow import ArrowSource
from .csv import CsvSource
from .declared import DeclaredSource
from .files import FilesSource
from .jsonl import JsonlSource
from .parquet import ParquetSource
from .ranges import Piece
from .reading import Reading
from .text import TextSource
from .webdataset import WebDatasetSource


class Source(Protocol):
    """A format. `columns` are those to read; None before they are known."""

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        """The columns of all files together."""

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[Piece]:
        """The pieces of the files, in order, none longer than a split should be."""

    def read(self, split: dict[str, Any]) -> Batch:
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
class _Patient:
    """A source that reads again while its store is away."""

    source: Source

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        return answered(lambda: self.source.inspect(files), "the input")

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[Piece]:
        return answered(lambda: self.source.cut(files, rows_per_part, limit), "the input")

    def read(self, split: dict[str, Any]) -> Batch:
        return patiently(lambda: self.source.read(split), split["path"])


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
    if format in _TEXTS:
        return _Patient(_TEXTS[format](dict(options), schema, reading))
    if reading.encoding is not None:
        raise ConfigError(
            f"input.encoding is of {', '.join(_TEXTS)}; the input is {format}, which has none"
        )
    if not reading.types:
        return _Patient(_SOURCES[format](dict(options), schema))
    if format not in ("parquet", "arrow"):
        raise ConfigError(
            f"input.schema is of {', '.join(_TEXTS)}, parquet and arrow; the columns of {format} "
            "have the types that they have"
        )
    return _Patient(DeclaredSource(_SOURCES[format], dict(options), schema, reading))
