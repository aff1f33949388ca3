"""How each format is inspected, cut into splits, and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa
from pipemill.actors.batch import Batch

from ..inputs import InputFile
from .jsonl import JsonlSource
from .parquet import ParquetSource
from .ranges import Range


class Source(Protocol):
    """A format. `columns` are those to read; None before they are known."""

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        """The columns of all files together."""

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[list[Range]]:
        """The ranges of each file, none longer than a split should be."""

    def read(self, split: dict[str, Any]) -> Batch:
        """The rows of a split, with the schema of the plan."""


def open_source(format: str, options: Mapping[str, Any], schema: pa.Schema | None = None) -> Source:
    kinds: dict[str, type[ParquetSource] | type[JsonlSource]] = {
        "parquet": ParquetSource,
        "jsonl": JsonlSource,
    }
    return kinds[format](dict(options), schema)
