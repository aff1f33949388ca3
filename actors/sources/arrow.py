"""Arrow IPC files and streams, such as `datasets` saves: splits are row ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from pipemill.errors import ConfigError

from ..batch import Batch
from ..split import Split
from ..storage.backoff import retry_on_driver
from ..storage.filesystem import open_filesystem
from ..storage.input_file import InputFile
from .base import FileSource
from .schemas.file_schemas import checked, fitted, null_rows, plain_column
from .schemas.unify import extremes, unify_columns
from .split_ranges import SplitRange, row_ranges

_FILE_MARK = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"

T = TypeVar("T")


@dataclass
class ArrowSource(FileSource):
    """Splits are row ranges."""

    name = "arrow"
    suffixes = (".arrow",)
    values = "typed"
    missing_columns = "unread"

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        found = self._each(files, _schema)
        return unify_columns(list(found), list(found.values()), self._extremes)

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        found = self._each(files, _row_group_size)
        counts = [found[file][0] if file in found else None for file in files]
        size = sum(bytes for _, bytes in found.values())
        return list(row_ranges(files, counts, size, rows_per_part, limit))

    def read(self, split: Split) -> Batch:
        schema = self.schema
        assert schema is not None
        if split.stop < 0:
            return self._unreadable(split, schema)
        rows, failed = self._rows(split, schema)
        batch = Batch(rows.combine_chunks())
        for row, reason in failed.items():
            batch.add_failure("read", row, reason)
        return batch

    def _rows(self, split: Split, schema: pa.Schema) -> tuple[pa.Table, dict[int, BaseException]]:
        """The rows of a split; those that can't be read are null, with the reason."""
        start, stop = split.start, split.stop
        tables, failed = [schema.empty_table()], dict[int, BaseException]()
        first = 0
        with self._open(split.path) as stream:
            for batch in _batches(stream):
                here = batch.slice(max(start - first, 0), max(stop - max(start, first), 0))
                if here.num_rows and first + batch.num_rows > start:
                    table, wrong = _cast_table(here, schema)
                    at = max(first - start, 0)
                    failed.update({at + row: error for row, error in wrong})
                    tables.append(table)
                first += batch.num_rows
                if first >= stop:
                    break
            rows = pa.concat_tables(tables)
            if rows.num_rows != stop - start:
                raise ValueError(f"{split.path}: rows {start} to {stop} are not all there")
            return rows, failed

    def _unreadable(self, split: Split, schema: pa.Schema) -> Batch:
        """One dead row for a whole file: how many it had nobody knows."""
        file = split.file
        reason = self._told(file, _row_group_size)
        if not isinstance(reason, ConfigError):
            raise ValueError(
                f"{split.path} could not be read when it was planned, and can be now: "
                "name another output"
            )
        batch = Batch(null_rows(schema, 1))
        batch.add_failure("read", 0, reason)
        return batch

    def _extremes(self, file: InputFile, name: str) -> tuple[int, int] | None:
        def read(stream: pa.NativeFile) -> tuple[int, int] | None:
            columns = [plain_column(batch.column(name)) for batch in _batches(stream)]
            return extremes(pa.chunked_array(columns)) if columns else None

        found = self._told(file, read)
        return None if isinstance(found, ConfigError) else found

    def _each(
        self, files: list[InputFile], look: Callable[[pa.NativeFile], T]
    ) -> dict[InputFile, T]:
        """What each file says; without those that are no Arrow. Raises ConfigError if all are."""
        found = {file: self._told(file, look) for file in files}
        good = {file: told for file, told in found.items() if not isinstance(told, ConfigError)}
        if found and not good:
            raise next(told for told in found.values() if isinstance(told, ConfigError))
        return good

    def _open(self, path: str) -> pa.NativeFile:
        filesystem, inner = open_filesystem(path, self.options)
        if isinstance(filesystem, LocalFileSystem):
            return pa.memory_map(inner)  # of what is skipped only the headers are touched
        return pa.PythonFile(filesystem.open(inner, "rb"), mode="r")

    def _told(self, file: InputFile, look: Callable[[pa.NativeFile], T]) -> T | ConfigError:
        """What a file says. Raises ConfigError where it is not the file that is to blame."""

        def read() -> T:
            with self._open(file.path) as stream:
                return look(stream)

        try:
            return retry_on_driver(read, file.path)
        except (OSError, EOFError, ValueError, pa.ArrowException) as error:
            said = ConfigError(f"can't read {file.path} as Arrow: {error}")
            if isinstance(error, PermissionError):
                raise said from None
            return said


def _reader(stream: pa.NativeFile) -> Any:
    mark = stream.read(len(_FILE_MARK))
    stream.seek(0)
    return pa.ipc.open_file(stream) if mark == _FILE_MARK else pa.ipc.open_stream(stream)


def _cast_table(
    rows: pa.RecordBatch, schema: pa.Schema
) -> tuple[pa.Table, list[tuple[int, BaseException]]]:
    """As `fitted`, of rows that may be damaged: Arrow takes them as they lie in the file."""
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid as error:
        reason = ValueError(f"the rows' record batch is damaged: {error}")
        return null_rows(schema, rows.num_rows), [(i, reason) for i in range(rows.num_rows)]
    return fitted(rows, schema)


def _schema(stream: pa.NativeFile) -> pa.Schema:
    return checked(_reader(stream).schema)


def _row_group_size(stream: pa.NativeFile) -> tuple[int, int]:
    """Rows and bytes of a file."""
    _schema(stream)
    stream.seek(0)
    sizes = [(batch.num_rows, batch.nbytes) for batch in _batches(stream)]
    return sum(rows for rows, _ in sizes), sum(bytes for _, bytes in sizes)


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
