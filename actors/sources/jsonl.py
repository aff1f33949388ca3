"""JSON Lines, plain or compressed: splits are byte ranges, of the text where it is compressed.

So are files of one JSON array, or of objects over several lines: they are read as lines.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from ..arrow_arrays import scatter_rows
from ..batch import Batch
from ..split import Split
from ..storage.input_file import InputFile
from .bad_file import BAD_FILE, BadFile, NothingToRead, bad_file_batch
from .base import FileSource
from .byte_ranges import SAMPLED_FILES, SAMPLED_ROWS, sample_evenly
from .parsing.json_values import Parser, fit_value, json_text
from .parsing.misfits import Misfit
from .reading import Reading
from .schemas.json_schema import JSON_TEXT, SeenColumns
from .split_ranges import SplitRange
from .streams.line_files import LineFiles

# An input of so many bytes, decompressed, is read as a whole to know its types.
SCANNED_BYTES = 64 * 2**20
# Marks the column that holds, as JSON, what does not go with the types of a sample.
_REST = {b"pipemill": b"rest"}


def holds_rest(column: pa.Field) -> bool:
    return column.metadata == _REST


@dataclass
class JsonlSource(FileSource):
    """Types are those of all rows, or of a sample of a large input."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson", ".json")
    compressible = True
    values = "text"
    columns_from_rows = True

    @property
    def files(self) -> LineFiles:
        return LineFiles(
            self.options,
            blank=False,
            encoding=self.reading.encoding,
            documents=True,
            is_row=_is_object,
        )

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        if all(map(_is_empty, files)):
            return pa.schema([])
        bad: list[BadFile] = []
        seen = self._scan(files, bad)
        whole = seen is not None
        if seen is None:
            seen = self._sample(files, bad)
        if not seen:
            reason = f"no JSON object with a key in the first lines of {files[0].path}"
            raise NothingToRead(str(bad[0]) if bad else reason)
        schema = self.reading.declare(seen.schema(self.reading.kinds))
        if (whole and not seen.too_many) or all(map(self.reading.is_wanted, schema.names)):
            return schema
        name = "_misfits"
        while name in schema.names:
            name = f"_{name}"
        return schema.append(pa.field(name, pa.string(), metadata=_REST))

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        return self.files.plan_splits(files, rows_per_part, limit)

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        whole = split.start == 0 and split.stop < 0
        rows = _Rows([], [], {}, Counter())
        parser = Parser(spells=any(field.metadata in (JSON_TEXT, _REST) for field in self.schema))
        try:
            for line in self.files.between(split):
                rows.add(parser, line.data, line.where, self.reading)
        except BAD_FILE as error:
            if not whole:
                raise
            return bad_file_batch(self.schema, split.path, "JSON", error)
        if whole and len(rows.rows) > 1 and len(rows.failed) == len(rows.rows):
            reason = ValueError(f"no line of it is a JSON object; {rows.failed[0]}")
            return bad_file_batch(self.schema, split.path, "JSON", reason)
        return self._batch(rows, parser)

    def _batch(self, rows: _Rows, parser: Parser) -> Batch:
        schema = self.schema
        assert schema is not None
        rest = next((field.name for field in schema if holds_rest(field)), None)
        misfits: dict[int, dict[str, Any]] = {}
        columns = []
        for column in schema:
            values = [row.get(column.name) for row in rows.rows]
            if column.name == rest:
                columns.append(pa.nulls(len(values), column.type))
            elif column.metadata == JSON_TEXT:
                texts = [None if v is None else json_text(v, parser.found_spelled) for v in values]
                columns.append(pa.array(texts, column.type))
            else:
                array, wrong = self._fitted(column, values, parser.found_long, rest is not None)
                columns.append(array)
                for i in wrong:
                    value = values[i]
                    if rest is None or self.reading.is_wanted(column.name):
                        error = Misfit(column.name, value, column.type, rows.wheres[i])
                        rows.failed.setdefault(i, error)
                    else:
                        misfits.setdefault(i, {})[column.name] = value
        table = self._with_rest(pa.table(columns, schema=schema), rows, misfits, rest)
        live = np.setdiff1d(np.arange(len(rows.rows)), list(rows.failed))
        found = [(live, table.take(pa.array(live)))] if len(live) else []
        batch = Batch(scatter_rows(found, len(rows.rows), schema))
        for number, reason in rows.failed.items():
            batch.add_failure("read", number, reason)
        batch.count_left_out(rows.left_out)
        return batch

    def _with_rest(
        self, table: pa.Table, rows: _Rows, misfits: dict[int, dict[str, Any]], rest: str | None
    ) -> pa.Table:
        """Put what no other column holds into the column for it, or count it as left out."""
        known = {*table.column_names, *self.reading.known}
        for i, row in enumerate(rows.rows):
            for name in row.keys() - known:
                if rest is None:
                    rows.left_out[name] += 1
                else:
                    misfits.setdefault(i, {})[name] = row[name]
        if rest is None:
            return table
        texts = [json_text(misfits[i]) if i in misfits else None for i in range(table.num_rows)]
        place = table.schema.get_field_index(rest)
        return table.set_column(place, table.schema.field(rest), pa.array(texts, pa.string()))

    def _fitted(
        self, column: pa.Field, values: list[Any], any_long: bool, has_rest: bool
    ) -> tuple[pa.Array, list[int]]:
        declared = column.name in self.reading.types
        return fit_value(
            values,
            column.type,
            # Text that the task reads is text; elsewhere the JSON of a value says what it was.
            as_text=declared or not (has_rest or column.name in self.reading.kinds),
            any_long=any_long,
            rounds=declared,
        )

    def _scan(self, files: list[InputFile], bad: list[BadFile]) -> SeenColumns | None:
        """What the columns of all rows are; None if that would take too long."""
        if sum(file.size for file in files) > SCANNED_BYTES:
            return None
        seen, left = SeenColumns(), SCANNED_BYTES
        for file in files:
            before = seen.copy()
            try:
                lines = (line for _, line in self.files.rows(file))
                while some := list(islice(lines, SAMPLED_ROWS)):
                    left -= sum(map(len, some))
                    if left < 0:
                        bad.clear()
                        return None
                    _observe(seen, some)
            except BadFile as error:
                bad.append(error)
                seen = before
        return seen

    def _sample(self, files: list[InputFile], bad: list[BadFile]) -> SeenColumns:
        """What the columns of the first rows of some files are."""
        seen = SeenColumns()
        some = sample_evenly(files, SAMPLED_FILES)
        paths = {file.path for file in some}
        for file in [*some, *(file for file in files if file.path not in paths)]:
            if file.path not in paths and seen:
                break
            try:
                _observe(seen, [line for _, line in islice(self.files.rows(file), SAMPLED_ROWS)])
            except BadFile as error:
                bad.append(error)
        return seen


def _is_empty(file: InputFile) -> bool:
    # Some web servers do not say how long a file is.
    return not file.size and not file.path.startswith("http")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(Parser().parse(line), dict)
    except (ValueError, RecursionError):
        return False


def _observe(seen: SeenColumns, lines: list[bytes]) -> None:
    """Note what is in those lines that are JSON objects."""
    parser, found = Parser(), []
    for line in lines:
        try:
            row = parser.parse(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    seen.add(found, parser.found_long)


@dataclass
class _Rows:
    """The rows of a split: `{}` for one that is none, and why in `failed`.

    wheres: the place of each, for messages. left_out: keys of which no column holds a value.
    """

    rows: list[dict[str, Any]]
    wheres: list[str]
    failed: dict[int, BaseException]
    left_out: Counter[str]

    def add(self, parser: Parser, line: bytes, where: str, reading: Reading) -> None:
        row: Any = {}
        try:
            row = _parse_lines(parser, line, where)
        except (ValueError, RecursionError) as error:
            self.failed[len(self.rows)] = error
        else:
            for name in parser.repeated:
                if name in reading.kinds and name in row:
                    twice = ValueError(f"column {name!r} is there twice ({where})")
                    self.failed[len(self.rows)] = twice
                else:
                    self.left_out[name] += 1
        self.rows.append(row)
        self.wheres.append(where)


def _parse_lines(parser: Parser, line: bytes, where: str) -> dict[str, Any]:
    try:
        row = parser.parse(line)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not UTF-8 ({error.reason}): name another encoding in input.encoding"
        ) from None
    except RecursionError:
        raise ValueError(f"{where} is no JSON that can be read: nested too deeply") from None
    except ValueError as error:
        message = f"{where} is no JSON"
        if isinstance(error, json.JSONDecodeError):  # which says where in the line
            raise json.JSONDecodeError(f"{message}: {error.msg}", error.doc, error.pos) from None
        raise ValueError(f"{message}: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be a JSON object, not {line[:80]!r}")
    return row
