"""Read JSON Lines, plain or compressed. Splits are byte ranges, of the decompressed text.

Files of one JSON array, and of objects over several lines, are read as lines, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from ..batch import Batch
from ..columns import is_string
from ..split import Split
from ..storage.input_file import InputFile
from ..storage.parallel import map_parallel
from .bad_file import (
    BAD_FILE,
    BadFile,
    NothingToRead,
    find_bare_returns,
    make_bad_file_batch,
)
from .base import FileSource
from .byte_ranges import SAMPLED_FILES, SAMPLED_ROWS, put_sample_first
from .parsing.json_parser import Parser, to_json_text
from .parsing.json_rows import JsonRows, parse_object
from .parsing.json_values import fit_values
from .parsing.misfits import Misfit
from .schemas.file_schemas import explain_lacking
from .schemas.json_schema import JSON_TEXT, SeenColumns
from .split_ranges import SplitRange
from .streams.line_files import LineFiles

# An input of at most this many bytes, decompressed, is read completely to infer its types.
SCANNED_BYTES = 64 * 2**20
# Marks the column that holds, as JSON, values that do not fit the types of a sample.
_REST = {b"pipemill": b"rest"}


def holds_rest(column: pa.Field) -> bool:
    """Tell whether a column holds the values that fit no other column."""
    return column.metadata == _REST


@dataclass
class JsonlSource(FileSource):
    """Types are those of all rows, or of a sample of a large input."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson", ".json", ".jsonlines")
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
        is_complete = seen is not None
        if seen is None:
            seen = self._sample(files, bad)
        if not seen:
            if not bad and not any(map(self._has_line, files)):
                return pa.schema([])
            raise NothingToRead(str(bad[0]) if bad else self._find_fault(files[0]))
        schema = self.reading.declare(seen.schema(self.reading.kinds))
        if is_complete and not seen.too_many:
            return schema
        if all(map(self.reading.is_wanted, schema.names)):
            return schema
        name = "_misfits"
        while name in schema.names:
            name = f"_{name}"
        return schema.append(pa.field(name, pa.string(), metadata=_REST))

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        return self.files.plan_splits(files, rows_per_part, limit, self.most_rows)

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        is_whole_file = split.start == 0 and split.stop < 0
        rows = JsonRows()
        parser = Parser(spells=any(map(self._keeps_spelling, self.schema)))
        try:
            for line in self.files.read_split(split):
                rows.add(parser, line.data, line.where, self.reading)
        except BAD_FILE as error:
            if not is_whole_file:
                raise
            return make_bad_file_batch(self.schema, split.path, "JSON", error)
        if is_whole_file and len(rows) > 1 and len(rows.failed) == len(rows):
            reason = ValueError(f"none of its lines is a JSON object; {rows.failed[0]}")
            return make_bad_file_batch(self.schema, split.path, "JSON", reason)
        is_all = is_whole_file or (split.start == 0 and split.stop >= split.size)
        where = split.path if is_all else f"the rows from byte {split.start} of {split.path}"
        return self._to_batch(rows, parser, where)

    def _keeps_spelling(self, column: pa.Field) -> bool:
        """Tell whether a column shows how numbers are written."""
        declared = is_string(column.type) and column.name in self.reading.types
        return declared or column.metadata in (JSON_TEXT, _REST)

    def _to_batch(self, rows: JsonRows, parser: Parser, where: str) -> Batch:
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
                texts = [
                    None if v is None else to_json_text(v, parser.found_spelled) for v in values
                ]
                columns.append(pa.array(texts, column.type))
            else:
                array, wrong = self._fit_values(column, values, parser.found_long, rest is not None)
                columns.append(array)
                for i in wrong:
                    value = values[i]
                    if rest is None or self.reading.is_wanted(column.name):
                        error = Misfit(column.name, value, column.type, rows.wheres[i])
                        rows.failed.setdefault(i, error)
                    else:
                        misfits.setdefault(i, {})[column.name] = value
        # A row that failed keeps the values that its other columns can hold.
        names = dict.fromkeys(name for row in rows.rows for name in row)
        batch = Batch(
            self._add_rest(pa.table(columns, schema=schema), rows, misfits, rest),
            lacking=explain_lacking(schema, list(names), where) if names else {},
        )
        for number, reason in rows.failed.items():
            batch.add_failure("read", number, reason)
        batch.count_left_out(rows.left_out)
        return batch

    def _add_rest(
        self,
        table: pa.Table,
        rows: JsonRows,
        misfits: dict[int, dict[str, Any]],
        rest: str | None,
    ) -> pa.Table:
        """Put the values that no column holds into the column for them, or count them."""
        known = {*table.column_names, *self.reading.known}
        for i, row in enumerate(rows.rows):
            for name in row.keys() - known:
                if rest is None:
                    rows.left_out[name] += 1
                else:
                    misfits.setdefault(i, {})[name] = row[name]
        if rest is None:
            return table
        texts = [to_json_text(misfits[i]) if i in misfits else None for i in range(table.num_rows)]
        index = table.schema.get_field_index(rest)
        return table.set_column(index, table.schema.field(rest), pa.array(texts, pa.string()))

    def _fit_values(
        self, column: pa.Field, values: list[Any], any_long: bool, has_rest: bool
    ) -> tuple[pa.Array, list[int]]:
        declared = column.name in self.reading.types
        return fit_values(
            values,
            column.type,
            # A text that the task reads must be one; other columns keep a value as its JSON.
            as_text=declared or not (has_rest or column.name in self.reading.kinds),
            any_long=any_long,
            rounds=declared,
        )

    def _has_line(self, file: InputFile) -> bool:
        return next(iter(self.files.rows(file)), None) is not None

    def _find_fault(self, file: InputFile) -> str:
        """Return why a file has no columns, by its first line."""
        reason = f"no JSON object with a key in the first lines of {file.path}"
        line = next((line for _, line in self.files.rows(file)), b"{}")
        if wrong := find_bare_returns(line):
            return f"{reason}: {wrong}"
        try:
            parse_object(Parser(), line, "line 1")
        except ValueError as error:
            return f"{reason}: {error}"
        return reason

    def _scan(self, files: list[InputFile], bad: list[BadFile]) -> SeenColumns | None:
        """Return the columns of all rows, or None if reading them would take too long."""
        if sum(file.size for file in files) > SCANNED_BYTES:
            return None
        scanned = 0  # bytes; threads may miss each other's, so it is a limit on memory alone

        def read(file: InputFile) -> list[bytes] | BadFile | None:
            nonlocal scanned
            lines: list[bytes] = []
            try:
                for _, line in self.files.rows(file):
                    scanned += len(line)
                    if scanned > SCANNED_BYTES:
                        return None
                    lines.append(line)
            except BadFile as error:
                scanned -= sum(map(len, lines))
                return error
            return lines

        seen, size = SeenColumns(), 0
        for lines in map_parallel(read, files):
            if isinstance(lines, BadFile):
                bad.append(lines)
                continue
            size += sum(map(len, lines or ()))
            if lines is None or size > SCANNED_BYTES:
                bad.clear()
                return None
            for first in range(0, len(lines), SAMPLED_ROWS):
                _observe(seen, lines[first : first + SAMPLED_ROWS])
        return seen

    def _sample(self, files: list[InputFile], bad: list[BadFile]) -> SeenColumns:
        """Return the columns of the first rows of some files."""
        seen = SeenColumns()
        for number, file in enumerate(put_sample_first(files)):
            if number >= SAMPLED_FILES and seen:
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
    """Note the columns of those lines that are JSON objects."""
    parser, rows = Parser(), []
    for line in lines:
        try:
            row = parser.parse(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    seen.add(rows, parser.found_long)
