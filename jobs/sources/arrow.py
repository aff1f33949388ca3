"""Arrow IPC files and streams, such as `datasets` saves: splits are row ranges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from pipemill.actors.batch import Batch

from ..errors import ConfigError
from ..listing import InputFile
from ..storage import open_filesystem
from .ranges import Piece, row_ranges
from .schemas import common_schema, shaped

_FILE_MARK = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass
class ArrowSource:
    options: dict[str, Any]
    schema: pa.Schema | None = None

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        schemas = []
        for file in files:
            with self._told(file), self._open(file.path) as stream:
                schemas.append(_reader(stream).schema)
        return common_schema(files, schemas)

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[Piece]:
        counts, size = [], 0
        for file in files:
            with self._told(file), self._open(file.path) as stream:
                lengths = [(batch.num_rows, batch.nbytes) for batch in _batches(stream)]
            counts.append(sum(rows for rows, _ in lengths))
            size += sum(bytes for _, bytes in lengths)
        return list(row_ranges(files, counts, size, rows_per_part, limit))

    def read(self, split: dict[str, Any]) -> Batch:
        schema = self.schema
        assert schema is not None
        start, stop = split["start"], split["stop"]
        tables, first = [schema.empty_table()], 0
        with self._open(split["path"]) as stream:
            for batch in _batches(stream):
                here = batch.slice(max(start - first, 0), max(stop - max(start, first), 0))
                if here.num_rows and first + batch.num_rows > start:
                    tables.append(shaped(here, schema))
                first += batch.num_rows
                if first >= stop:
                    break
            rows = pa.concat_tables(tables)
            if rows.num_rows != stop - start:
                raise ValueError(f"{split['path']}: rows {start} to {stop} are not all there")
            return Batch(rows.combine_chunks())

    def _open(self, path: str) -> pa.NativeFile:
        filesystem, inner = open_filesystem(path, self.options)
        if isinstance(filesystem, LocalFileSystem):
            return pa.memory_map(inner)  # of what is skipped only the headers are touched
        return pa.PythonFile(filesystem.open(inner, "rb"), mode="r")

    @contextmanager
    def _told(self, file: InputFile) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, pa.ArrowException) as error:
            raise ConfigError(f"can't read {file.path} as Arrow: {error}") from None


def _reader(stream: pa.NativeFile) -> Any:
    mark = stream.read(len(_FILE_MARK))
    stream.seek(0)
    return pa.ipc.open_file(stream) if mark == _FILE_MARK else pa.ipc.open_stream(stream)


def _batches(stream: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    reader = _reader(stream)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from reader
        # Arrow takes a stream that was cut off between two batches for a whole one.
        stream.seek(max(stream.tell() - len(_STREAM_END), 0))
        if stream.read(len(_STREAM_END)) != _STREAM_END:
            raise EOFError("the stream was not finished: the mark of its end is missing")
