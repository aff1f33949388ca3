"""JSON Lines, plain or compressed: splits are byte ranges, of the text where it is compressed."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.batch import Batch
from pipemill.actors.isolate import isolate

from ..errors import ConfigError
from ..listing import InputFile
from .json_schema import JSON_TEXT, as_text, infer_schema, unified
from .lines import SAMPLED_FILES, SAMPLED_ROWS, LineFiles, in_place, spread
from .ranges import Piece


@dataclass
class JsonlSource:
    options: dict[str, Any]
    schema: pa.Schema | None = None

    @property
    def files(self) -> LineFiles:
        return LineFiles(self.options, blank=False)

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        schemas = []
        for file in spread(files, SAMPLED_FILES):
            schema = infer_schema([row for row in self._sample(file) if isinstance(row, dict)])
            if schema.names:
                schemas.append(schema)
        if not schemas:
            raise ConfigError(f"no JSON object with a key in the first lines of {files[0].path}")
        try:
            return unified(schemas)
        except pa.ArrowTypeError as error:
            raise ConfigError(f"the input's files differ in a column's type: {error}") from None

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[Piece]:
        return self.files.cut(files, rows_per_part, limit)

    def read(self, split: dict[str, Any]) -> Batch:
        schema = self.schema
        assert schema is not None
        rows: list[dict[str, Any]] = []
        failed: list[tuple[int, BaseException]] = []
        json_columns = [field.name for field in schema if field.metadata == JSON_TEXT]
        lines = self.files.between(split["path"], split["start"], split["stop"])
        for number, line in enumerate(lines):
            try:
                rows.append(as_text(_parse(line), json_columns))
            except (ValueError, RecursionError) as error:
                rows.append({})
                failed.append((number, error))
        good = np.setdiff1d(np.arange(len(rows)), [number for number, _ in failed])
        pieces, mistyped = isolate(
            good, lambda some: pa.Table.from_pylist([rows[i] for i in some], schema=schema)
        )
        batch = Batch(in_place(pieces, len(rows), schema))
        for number, reason in failed + mistyped:
            batch.fail("read", number, reason)
        return batch

    def _sample(self, file: InputFile) -> Iterator[Any]:
        """The first rows, those that are JSON."""
        for _, line in islice(self.files.rows(file), SAMPLED_ROWS):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                continue


def _parse(line: bytes) -> dict[str, Any]:
    """Raises ValueError, which UnicodeDecodeError and JSONDecodeError are."""
    row = json.loads(line.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
    if not isinstance(row, dict):
        raise ValueError(f"a line must be a JSON object, not {line[:80]!r}")
    return row
