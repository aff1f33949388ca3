"""Plain text: a row per line, blank ones too; splits are byte ranges."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pipemill.actors.batch import Batch

from ..listing import InputFile
from .lines import LineFiles
from .ranges import Piece


@dataclass
class TextSource:
    """One column, text: the line without its end."""

    options: dict[str, Any]
    schema: pa.Schema | None = None

    @property
    def files(self) -> LineFiles:
        return LineFiles(self.options, blank=True)

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        return pa.schema([("text", pa.string())])

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[Piece]:
        return self.files.cut(files, rows_per_part, limit)

    def read(self, split: dict[str, Any]) -> Batch:
        assert self.schema is not None
        values: list[str | None] = []
        failed: dict[int, UnicodeDecodeError] = {}
        lines = self.files.between(split["path"], split["start"], split["stop"])
        for number, line in enumerate(lines):
            if number == 0 and split["start"] == 0:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                values.append(line.removesuffix(b"\n").removesuffix(b"\r").decode())
            except UnicodeDecodeError as error:
                values.append(None)
                failed[number] = error
        table = pa.table({"text": pa.array(values, pa.string())})
        batch = Batch(table.select(self.schema.names))
        for number, reason in failed.items():
            batch.fail("read", number, reason)
        return batch
