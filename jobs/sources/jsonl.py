"""JSON Lines, plain or compressed: splits are byte ranges, of the text where it is compressed."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileOpener
from pipemill.actors.batch import Batch
from pipemill.actors.isolate import isolate

from ..errors import ConfigError
from ..inputs import InputFile, compression_of
from ..storage import open_filesystem
from .json_schema import JSON_TEXT, as_text, infer_schema
from .ranges import Range, even_ranges, rows_per_split

_SAMPLED_FILES, _SAMPLED_ROWS = 16, 2000
# A smaller compressed file is one split; only a larger one is read to find where to cut it.
_LARGE_COMPRESSED = 8 * 2**20


@dataclass
class JsonlSource:
    options: dict[str, Any]
    schema: pa.Schema | None = None

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        schemas = []
        for file in _spread(files, _SAMPLED_FILES):
            rows = [row for row in self._sample(file) if isinstance(row, dict)]
            if rows:
                schemas.append(infer_schema(rows))
        if not schemas:
            raise ConfigError(f"no JSON object in the first lines of {files[0].path}")
        try:
            schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowTypeError as error:
            raise ConfigError(f"the input's files differ in a column's type: {error}") from None
        return schema

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[list[Range]]:
        width = self._bytes_per_row(files[0])
        rows = sum(file.size for file in files) / width
        step = rows_per_part or rows_per_split(rows, width)
        left = limit
        ranges = []
        for file in files:
            large = compression_of(file.path) and file.size > _LARGE_COMPRESSED
            if rows_per_part or limit is not None or large:
                found = self._counted(file, step, left)
                left = None if left is None else left - sum(r.rows or 0 for r in found)
            elif compression_of(file.path):
                found = [Range(0, -1, None)] if file.size else []
            else:
                pieces = even_ranges(file.size, max(int(step * width), 1))
                found = [Range(start, stop, None) for start, stop in pieces]
            ranges.append(found)
        return ranges

    def read(self, split: dict[str, Any]) -> Batch:
        schema = self.schema
        assert schema is not None
        rows: list[dict[str, Any]] = []
        failed: list[tuple[int, BaseException]] = []
        json_columns = [field.name for field in schema if field.metadata == JSON_TEXT]
        with self._open(split["path"]) as stream:
            for number, line in enumerate(_lines(stream, split["start"], split["stop"])):
                try:
                    rows.append(as_text(_parse(line), json_columns))
                except (ValueError, RecursionError) as error:
                    rows.append({})
                    failed.append((number, error))
        good = np.setdiff1d(np.arange(len(rows)), [number for number, _ in failed])
        pieces, mistyped = isolate(
            good, lambda some: pa.Table.from_pylist([rows[i] for i in some], schema=schema)
        )
        batch = Batch(_in_place(pieces, len(rows), schema))
        for number, reason in failed + mistyped:
            batch.fail("read", number, reason)
        return batch

    def _open(self, path: str) -> IO[bytes]:
        filesystem, inner = open_filesystem(path, self.options)
        compression = compression_of(path)
        if compression == "zstd":
            # Arrow's reader: unlike fsspec's it says when the file ends too early.
            raw = pa.PythonFile(filesystem.open(inner, "rb"), mode="r")
            stream = pa.CompressedInputStream(raw, "zstd")
        else:
            stream = filesystem.open(inner, "rb", compression=compression)
        # Remote files read lines slowly by themselves, and Arrow's not at all.
        lines = isinstance(stream, LocalFileOpener | gzip.GzipFile)
        return stream if lines else io.BufferedReader(stream, 2**20)

    def _sample(self, file: InputFile) -> Iterator[Any]:
        """The first rows, those that are JSON."""
        for number, (_, line) in enumerate(self._numbered(file)):
            if number == _SAMPLED_ROWS:
                return
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                continue

    def _numbered(self, file: InputFile) -> Iterator[tuple[int, bytes]]:
        """Each line that is not blank, with the place where it starts."""
        try:
            with self._open(file.path) as stream:
                place = 0
                for line in stream:
                    if line.strip():
                        yield place, line
                    place += len(line)
        except (OSError, EOFError) as error:
            raise ConfigError(f"can't read {file.path}: {error}") from None

    def _bytes_per_row(self, file: InputFile) -> float:
        widths = [
            len(line)
            for _, (_, line) in zip(range(_SAMPLED_ROWS), self._numbered(file), strict=False)
        ]
        return max(sum(widths) / max(len(widths), 1), 1)

    def _counted(self, file: InputFile, step: int, limit: int | None) -> list[Range]:
        """Ranges of exactly `step` rows, found by reading the file."""
        starts: list[int] = []
        count, end = 0, 0
        for place, line in self._numbered(file):
            if limit is not None and count == limit:
                break
            if count % step == 0:
                starts.append(place)
            count, end = count + 1, place + len(line)
        if not starts:
            return []
        stops = [*starts[1:], end]
        return [
            Range(start, stop, min(step, count - i * step))
            for i, (start, stop) in enumerate(zip(starts, stops, strict=True))
        ]


def _lines(stream: IO[bytes], start: int, stop: int) -> Iterator[bytes]:
    """Lines that start within [start, stop), blank ones left out; a stop of -1 is the end.

    The line that a range begins in the middle of belongs to the range before it.
    """
    place = 0
    if start > 0:
        _skip(stream, start - 1)
        place = start - 1 + len(stream.readline())
    while stop < 0 or place < stop:
        line = stream.readline()
        if not line:
            return
        if line.strip():
            yield line
        place += len(line)


def _skip(stream: IO[bytes], count: int) -> None:
    if stream.seekable():
        stream.seek(count)
    while not stream.seekable() and count > 0:
        count -= len(stream.read(min(count, 2**20)))


def _parse(line: bytes) -> dict[str, Any]:
    """Raises ValueError, which UnicodeDecodeError and JSONDecodeError are."""
    row = json.loads(line.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
    if not isinstance(row, dict):
        raise ValueError(f"a line must be a JSON object, not {line[:80]!r}")
    return row


def _in_place(pieces: list[tuple[np.ndarray, pa.Table]], count: int, schema: pa.Schema) -> pa.Table:
    """`count` rows: the pieces' at their numbers, nulls elsewhere."""
    source = np.full(count, -1, dtype=np.int64)
    numbers = [numbers for numbers, _ in pieces]
    if numbers:
        source[np.concatenate(numbers)] = np.arange(sum(map(len, numbers)))
    table = pa.concat_tables([schema.empty_table(), *(table for _, table in pieces)])
    return table.combine_chunks().take(pa.array(source, mask=source < 0))


def _spread(files: list[InputFile], count: int) -> list[InputFile]:
    """Up to `count` files, from the first to the last."""
    places = np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)
    return [files[i] for i in dict.fromkeys(places.tolist())]
