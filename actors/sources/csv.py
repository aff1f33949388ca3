"""Read CSV and TSV with a header line. Splits are byte ranges of whole records.

Arrow parses the values. The records are found in Python: only so can a file be split, and each row
that is wrong be named.
"""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import IO

import pyarrow as pa

from pipemill.errors import ConfigError

from ..batch import Batch
from ..split import Split
from ..storage.input_file import InputFile
from ..storage.parallel import map_parallel
from .bad_file import BAD_FILE, BadFile, NothingToRead, make_bad_file_batch
from .base import FileSource
from .byte_ranges import (
    SAMPLED_FILES,
    SAMPLED_ROWS,
    ByteRangePlanner,
    RowOffsets,
    sample_evenly,
)
from .parsing.csv_headers import (
    find_common_names,
    find_delimiter,
    find_foreign_name,
    find_header,
    is_not_header,
    parse_column_names,
)
from .parsing.csv_records import (
    PLAIN_QUOTES,
    Dialect,
    Record,
    find_record_offsets,
    find_records,
)
from .parsing.csv_values import infer_types, parse_columns
from .schemas.file_schemas import make_null_rows
from .split_ranges import SplitRange
from .streams.kept_streams import Place, identify, place_before, seeks_slowly
from .streams.line_files import LineFiles
from .streams.read_bytes import counts_lines, skip_bytes

_INFERRED_BYTES = 4 * 2**20


@dataclass
class CsvSource(FileSource):
    """Columns are text, unless the task reads them as another type, or the user declares one.

    odd: the paths of bad files, whose header is that of another table.
    """

    name = "csv"
    suffixes = (".csv", ".tsv", ".tab")
    compressible = True
    values = "text"
    missing_columns = "none"

    odd: set[str] = field(default_factory=set)

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        records = list(map_parallel(self._read_header, files))
        good, headers = [], []
        for file, header in zip(files, records, strict=True):
            if isinstance(header, Record):
                good.append(file)
                headers.append(parse_column_names(header))
        bad = [header for header in records if isinstance(header, BadFile)]
        if not good and bad:
            raise NothingToRead(str(bad[0]))
        if not good:
            raise NothingToRead(f"{files[0].path} has no header line with the names of its columns")
        good, headers = self._drop_strangers(good, headers)
        names = find_common_names(good, headers)
        sampled = [self._infer_types(file) for file in sample_evenly(good, SAMPLED_FILES)]
        if not any(isinstance(kinds, dict) for kinds in sampled):
            raise NothingToRead(str(sampled[0]))
        kinds = [kinds for kinds in sampled if isinstance(kinds, dict)]
        fields = [pa.field(name, _choose_common_type(name, kinds)) for name in names]
        return self.reading.declare(pa.schema(fields))

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        planner = ByteRangePlanner(row_offsets=self._find_row_offsets, most_rows=self.most_rows)
        return planner.plan(files, rows_per_part, limit)

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        try:
            return self._read(split, self.schema)
        except BAD_FILE as error:
            if split.start > 0 or split.stop >= 0:
                raise
            return make_bad_file_batch(self.schema, split.path, "CSV", error)

    def _read(self, split: Split, schema: pa.Schema) -> Batch:
        dialect = self._find_dialect(split.path)
        text = self._read_text(split, schema)
        if text is None:
            return Batch(schema.empty_table())
        records = list(find_records(io.BytesIO(text.data), dialect, len(text.names)))
        torn = records.pop() if records and not records[-1].closed else None
        closed = text.data[: torn.start] if torn else text.data
        rows, failed = parse_columns(
            closed, text.names, dialect, records, schema, self.reading, text.where
        )
        for row, record in enumerate(records):
            if record.broken:
                failed[row] = ValueError(
                    f"invalid CSV at byte {text.start + record.start}: {record.broken} "
                    f"({text.where(record)})"
                )
        if torn:
            failed[len(records)] = ValueError(
                f"a quote that opens in the row at byte {text.start + torn.start} is never closed "
                f"({text.where(torn)}): {PLAIN_QUOTES}"
            )
            rows = pa.concat_tables([rows, make_null_rows(schema, 1)])
        batch = Batch(rows.combine_chunks())
        self.count_new_columns(batch, text.names)
        for row, error in failed.items():
            batch.add_failure("read", row, error)
        return batch

    def _read_text(self, split: Split, schema: pa.Schema) -> _Text | None:
        """Return the records of a split; None for a file without a header."""
        path, start, stop = split.path, split.start, split.stop
        file, how = identify(split.file, self.options), ("CSV", self.reading.encoding)
        with place_before(file, how, start, lambda: self._begin(path, start)) as place:
            stream, header = place.stream, place.header
            if header is None:
                return None
            names = parse_column_names(header)
            if missing := [name for name in schema.names if name not in names]:
                raise BadFile(
                    find_foreign_name(header)
                    or f"its header ({', '.join(names)[:200]}) lacks {', '.join(missing)}, which "
                    "other files have"
                )
            start = max(start, header.stop)
            seeks = stream.seekable()
            if stop < 0 and seeks and split.size:
                stop = split.size  # what was appended after planning is not input
            counts = counts_lines(path, start, stream)
            place.number += skip_bytes(stream, start, place.position, counts)
            line = place.number + 1 if start == header.stop or counts else None
            data = stream.read(stop - start if stop >= 0 else -1)
            place.position, place.number = start + len(data), place.number + data.count(b"\n")
            if stop >= 0 and len(data) != stop - start:
                raise ValueError(
                    f"{path} is shorter than planned: it lacks some of the bytes {start} to {stop}"
                )
            place.stays = split.stop >= 0 and seeks_slowly(path, stream)
        return _Text(path, data, names, start, line)

    def _drop_strangers(
        self, files: list[InputFile], headers: list[list[str]]
    ) -> tuple[list[InputFile], list[list[str]]]:
        """Drop files whose header shares no name with the most frequent one: they are bad files.

        A header that shares some names stays, and is refused before the run.
        """
        usual, count = Counter(frozenset(header) for header in headers).most_common(1)[0]
        if count * 2 <= len(files):
            return files, headers
        strange = [usual.isdisjoint(header) for header in headers]
        self.odd = {file.path for file, odd in zip(files, strange, strict=True) if odd}
        kept = [i for i, odd in enumerate(strange) if not odd]
        return [files[i] for i in kept], [headers[i] for i in kept]

    def _find_dialect(self, path: str) -> Dialect:
        return Dialect(self.reading.delimiter or find_delimiter(path), self.reading.quotes)

    def _begin(self, path: str, start: int = 0) -> Place:
        """Open a file after its header, which is None if the file is empty."""
        files = LineFiles(self.options, blank=True, encoding=self.reading.encoding)
        stream = files.open_text(path, start)
        try:
            header = find_header(stream, self._find_dialect(path))
            if header is not None and header.broken:
                raise BadFile(f"its header: {header.broken}")
            if header is not None and not header.closed:
                raise BadFile("its header has a quote that is never closed")
            if header is not None and is_not_header(header):
                names = ", ".join(parse_column_names(header))[:80]
                raise BadFile(f"its first line is not a header: {names!r}")
        except BaseException:
            stream.close()
            raise
        return Place(stream, header.stop if header else 0, header.lines if header else 0, header)

    @contextmanager
    def _open_named(self, file: InputFile) -> Iterator[tuple[IO[bytes], Record | None]]:
        """Open a file; errors name it. Raises BadFile, or ConfigError if it is not at fault."""
        try:
            place = self._begin(file.path)
            with place.stream as stream:
                if place.header is not None and (why := find_foreign_name(place.header)):
                    raise BadFile(why)
                yield stream, place.header
        except BAD_FILE as error:
            raise BadFile(f"can't read {file.path} as CSV: {error}") from None
        except (OSError, ValueError, zlib.error) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"can't read {file.path} as CSV: {error}") from None

    def _read_header(self, file: InputFile) -> Record | BadFile | None:
        try:
            with self._open_named(file) as (_, header):
                return header
        except BadFile as error:
            return error

    def _find_row_offsets(self, file: InputFile) -> RowOffsets:
        if file.path in self.odd:
            raise BadFile(file.path)
        with self._open_named(file) as (stream, header):
            if header is not None:
                dialect, width = self._find_dialect(file.path), len(header.fields)
                yield from find_record_offsets(stream, dialect, width, header.stop)

    def _infer_types(self, file: InputFile) -> dict[str, pa.DataType] | BadFile:
        """Infer the types of the columns that the task reads by the first rows."""
        try:
            with self._open_named(file) as (stream, header):
                assert header is not None
                data = stream.read(_INFERRED_BYTES)
        except BadFile as error:
            return error
        dialect, names = self._find_dialect(file.path), parse_column_names(header)
        found = find_records(io.BytesIO(data), dialect, len(names))
        records = list(islice(found, SAMPLED_ROWS))
        if records and (len(data) == _INFERRED_BYTES or not records[-1].closed):
            records.pop()  # it may be cut off
        data = data[: records[-1].stop if records else 0]
        kinds = dict(self.reading.kinds)
        return infer_types(data, names, dialect, records, kinds)


@dataclass(frozen=True)
class _Text:
    """The records of a split.

    names: the columns in the file's header.
    start: the byte of the file at which the data starts.
    line: the number of the first line; None if it is unknown.
    """

    path: str
    data: bytes
    names: list[str]
    start: int
    line: int | None

    def where(self, record: Record) -> str:
        """Return the place of a record, for messages."""
        if self.line is None:
            return f"byte {self.start + record.start} of {self.path}"
        own = self.data.count(b"\n", record.start, record.stop - 1)
        return f"line {self.line + record.lines - 1 - own} of {self.path}"


def _choose_common_type(name: str, sampled: list[dict[str, pa.DataType]]) -> pa.DataType:
    """Return the type of a column in several files; text if it is text in one."""
    kinds = {kinds.get(name, pa.string()) for kinds in sampled}
    if kinds == {pa.int64(), pa.float64()}:
        return pa.float64()
    return kinds.pop() if len(kinds) == 1 else pa.string()
