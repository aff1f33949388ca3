"""Read plain text, a row per line, blank ones too. Splits are byte ranges."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from ..batch import Batch
from ..split import Split
from ..storage.input_file import InputFile
from .bad_file import (
    BAD_FILE,
    BadFile,
    NothingToRead,
    find_bare_returns,
    make_bad_file_batch,
)
from .base import FileSource
from .byte_ranges import SAMPLED_ROWS, put_sample_first
from .parsing.csv_values import parse_fields
from .split_ranges import SplitRange
from .streams.line_files import LineFiles


@dataclass
class TextSource(FileSource):
    """One column, text: a line without its end."""

    name = "text"
    suffixes = (".txt",)
    compressible = True
    values = "text"
    is_companion = True

    @property
    def files(self) -> LineFiles:
        return LineFiles(self.options, blank=True, encoding=self.reading.encoding, is_row=_is_text)

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        bad: list[BadFile] = []
        # One readable file is enough; a bad file costs one dead letter.
        for file in put_sample_first(files):
            error = self._find_fault(file)
            if error is None:
                break
            bad.append(error)
        else:
            raise NothingToRead(str(bad[0]))
        return self.reading.declare(pa.schema([("text", pa.string())]))

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        return self.files.plan_splits(files, rows_per_part, limit, self.most_rows)

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        is_whole_file = split.start == 0 and split.stop < 0
        values: list[bytes] = []
        only = b""
        wheres: list[str] = []
        try:
            for number, line in enumerate(self.files.read_split(split)):
                only = line.data if number == 0 and split.start == 0 else b""
                values.append(_read_content(line.data, number == 0 and split.start == 0))
                wheres.append(line.where)
        except BAD_FILE as error:
            if not is_whole_file:
                raise
            return make_bad_file_batch(self.schema, split.path, "text", error)
        if wrong_ends := find_bare_returns(only):
            return make_bad_file_batch(self.schema, split.path, "text", ValueError(wrong_ends))
        column = pa.field("text", self.schema.field("text").type if self.schema.names else "string")
        array, wrong = _to_column(values, wheres, column)
        if is_whole_file and len(values) > 1 and len(wrong) == len(values):
            reason = ValueError(f"none of its lines is text; {wrong[0]}")
            return make_bad_file_batch(self.schema, split.path, "text", reason)
        batch = Batch(pa.table([array], names=["text"]).select(self.schema.names))
        for row, failure in wrong.items():
            batch.add_failure("read", row, failure)
        return batch

    def _find_fault(self, file: InputFile) -> BadFile | None:
        """Return why a file is bad, as far as its first lines tell."""
        try:
            lines = [line for _, line in islice(self.files.rows(file), SAMPLED_ROWS)]
        except BadFile as error:
            return error
        if len(lines) == 1 and (wrong := find_bare_returns(lines[0])):
            return BadFile(f"can't read {file.path} as text: {wrong}")
        if len(lines) > 1 and not any(map(_is_text, lines)):
            return BadFile(
                f"can't read {file.path} as text: none of its first lines is UTF-8. Name its "
                "encoding in input.encoding"
            )
        return None


def _read_content(line: bytes, first: bool) -> bytes:
    line = line.removeprefix(codecs.BOM_UTF8) if first else line
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _to_column(
    values: list[bytes], wheres: list[str], column: pa.Field
) -> tuple[pa.Array, dict[int, BaseException]]:
    """Return the lines as a column, with null and an error for those that don't fit."""
    if column.type != pa.string():
        array, wrong = parse_fields(pa.array(values, pa.binary()), column, wheres.__getitem__)
        return array, dict(wrong)
    texts: list[str | None] = []
    failed: dict[int, BaseException] = {}
    for row, value in enumerate(values):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError as error:
            texts.append(None)
            error.reason += f" ({wheres[row]}): name another encoding in input.encoding"
            failed[row] = error
    return pa.array(texts, pa.string()), failed
