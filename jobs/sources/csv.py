"""CSV and TSV with a header line: splits are byte ranges that start and end with a record."""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

import pyarrow as pa
from pipemill.actors.batch import Batch

from ..errors import ConfigError
from ..formats import COMPRESSIONS, member_of
from ..listing import InputFile
from .csv_values import inferred, parsed
from .lines import SAMPLED_FILES, SAMPLED_ROWS, LineFiles, Places, cut_by_reading, skip, spread
from .ranges import Piece
from .records import Record, records
from .schemas import common_schema

_THREADS = 16
_INFERRED_BYTES = 4 * 2**20


@dataclass
class CsvSource:
    """Types are those of the first rows; a later value of another type is its row's failure."""

    options: dict[str, Any]
    schema: pa.Schema | None = None

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        with ThreadPoolExecutor(_THREADS) as threads:
            headers = list(threads.map(self._names, files))
        names = [pa.schema([(name, pa.null()) for name in header]) for header in headers]
        common = common_schema(files, names)
        sampled = [self._inferred(file) for file in spread(files, SAMPLED_FILES)]
        return pa.schema([_common_field(name, sampled) for name in common.names])

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[Piece]:
        return cut_by_reading(files, rows_per_part, limit, self._places)

    def read(self, split: dict[str, Any]) -> Batch:
        assert self.schema is not None
        path, start, stop = split["path"], split["start"], split["stop"]
        with self._open(path) as (stream, header):
            start = max(start, header.stop)
            skip(stream, start if stream.seekable() else start - header.stop)
            data = stream.read(stop - start if stop >= 0 else -1)
        if stop >= 0 and len(data) != stop - start:
            raise ValueError(f"{path}: bytes {start} to {stop} are not all there")
        found = list(records(io.BytesIO(data), _delimiter(path)))
        torn = found.pop() if found and not found[-1].closed else None
        kept = data[: torn.start] if torn else data
        rows, failed = parsed(kept, _names(header), _delimiter(path), found, self.schema)
        for row, record in enumerate(found):
            if record.broken:
                failed[row] = ValueError(f"no CSV at byte {start + record.start}: {record.broken}")
        if torn:
            failed[len(found)] = ValueError(
                f"a quote that opens in the row at byte {start + torn.start} is never closed"
            )
            nothing = [pa.nulls(1, field.type) for field in self.schema]
            rows = pa.concat_tables([rows, pa.table(nothing, schema=self.schema)])
        batch = Batch(rows.combine_chunks())
        for row, error in failed.items():
            batch.fail("read", row, error)
        return batch

    @contextmanager
    def _open(self, path: str) -> Iterator[tuple[IO[bytes], Record]]:
        """A stream of a file's bytes behind its header, and the header."""
        with LineFiles(self.options, blank=True).open(path) as stream:
            # Not iterated over, which would read ahead.
            header = next(records(iter(stream.readline, b""), _delimiter(path)), None)
            if header is None:
                raise ConfigError(f"{path} has no header line with the names of its columns")
            if header.broken:
                raise ConfigError(f"can't read {path} as CSV: its header: {header.broken}")
            yield stream, header

    @contextmanager
    def _told(self, file: InputFile) -> Iterator[tuple[IO[bytes], Record]]:
        try:
            with self._open(file.path) as opened:
                yield opened
        except (OSError, EOFError, ValueError, zlib.error) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"can't read {file.path} as CSV: {error}") from None

    def _names(self, file: InputFile) -> list[str]:
        with self._told(file) as (_, header):
            return _names(header)

    def _places(self, file: InputFile) -> Places:
        with self._told(file) as (stream, header):
            for record in records(stream, _delimiter(file.path), header.stop):
                yield record.start, record.stop

    def _inferred(self, file: InputFile) -> pa.Schema:
        """Types of the columns, by the first rows."""
        with self._told(file) as (stream, header):
            data = stream.read(_INFERRED_BYTES)
            found = list(islice(records(io.BytesIO(data), _delimiter(file.path)), SAMPLED_ROWS))
            if found and (len(data) == _INFERRED_BYTES or not found[-1].closed):
                found.pop()  # perhaps not whole
            data = data[: found[-1].stop if found else 0]
            return inferred(data, _names(header), _delimiter(file.path), found)


def _names(header: Record) -> list[str]:
    # An odd byte in a name is kept as what it can be.
    texts = [field.encode("latin-1") for field in header.fields]
    texts[0] = texts[0].removeprefix(codecs.BOM_UTF8).removeprefix(b'"').removesuffix(b'"')
    return [text.decode(errors="replace") for text in texts]


def _delimiter(path: str) -> str:
    name = member_of(path).lower()
    for end in COMPRESSIONS:
        name = name.removesuffix(end)
    return "\t" if name.endswith(".tsv") else ","


def _common_field(name: str, schemas: list[pa.Schema]) -> pa.Field:
    own = [pa.schema([schema.field(name)]) for schema in schemas]
    try:
        kind = pa.unify_schemas(own, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        kind = pa.string()
    text = pa.types.is_null(kind) or pa.types.is_binary(kind)
    return pa.field(name, pa.string() if text else kind)
