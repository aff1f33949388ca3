"""Read Arrow IPC files and streams, such as `datasets` saves. Splits are row ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from pipemill.errors import ConfigError

from ..batch import Batch
from ..split import Split
from ..storage.filesystem import open_filesystem
from ..storage.input_file import InputFile
from ..storage.parallel import map_parallel
from .bad_file import make_unread_batch, read_or_explain
from .base import FileSource
from .schemas.file_schemas import (
    cast_valid_rows,
    check_names,
    explain_lacking,
    make_null_rows,
    map_types,
    simplify_column,
)
from .schemas.unify import find_extremes, unify_columns
from .split_ranges import SplitRange, cut_rows

_FILE_MARK = b"ARROW1"
_FEATHER_1 = b"FEA1"
_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"

T = TypeVar("T")


@dataclass
class ArrowSource(FileSource):
    """Splits are row ranges."""

    name = "arrow"
    suffixes = (".arrow", ".arrows", ".feather", ".ipc")
    values = "typed"
    missing_columns = "unread"

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        schemas = self._read_each(files, _read_schema)
        return unify_columns(
            list(schemas), list(schemas.values()), self._find_extremes, self._has_values
        )

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> Iterable[SplitRange]:
        sizes = self._read_each(files, _count_rows_and_bytes)
        counts = [sizes[file][0] if file in sizes else None for file in files]
        size = sum(bytes for _, bytes in sizes.values())
        return cut_rows(files, counts, size, rows_per_part, limit, self.most_rows)

    def read(self, split: Split) -> Batch:
        schema = self.schema
        assert schema is not None
        if split.stop < 0:
            read = self._read_file(split.file, _count_rows_and_bytes)
            return make_unread_batch(schema, split.path, read)
        rows, failed, names = self._read_rows(split, schema)
        batch = Batch(rows.combine_chunks(), lacking=explain_lacking(schema, names, split.path))
        self.count_new_columns(batch, names)
        for row, reason in failed.items():
            batch.add_failure("read", row, reason)
        return batch

    def _read_rows(
        self, split: Split, schema: pa.Schema
    ) -> tuple[pa.Table, dict[int, BaseException], list[str]]:
        """Return the rows of a split, null if they can't be read, and the errors by row.

        And the names of the file's columns.
        """
        start, stop = split.start, split.stop
        tables, failed = [schema.empty_table()], dict[int, BaseException]()
        first, names = 0, schema.names
        with self._open(split.path) as stream:
            for batch in _iterate_batches(stream):
                part = batch.slice(max(start - first, 0), max(stop - max(start, first), 0))
                names = batch.schema.names
                if part.num_rows and first + batch.num_rows > start:
                    table, wrong = _cast_batch(part, schema)
                    at = max(first - start, 0)
                    failed.update({at + row: error for row, error in wrong})
                    tables.append(table)
                first += batch.num_rows
                if first >= stop:
                    break
            rows = pa.concat_tables(tables)
            if rows.num_rows != stop - start:
                raise ValueError(f"{split.path} lacks some of the planned rows {start} to {stop}")
            return rows, failed, names

    def _find_extremes(self, file: InputFile, name: str) -> tuple[int, int] | None:
        def read(stream: pa.NativeFile) -> tuple[int, int] | None:
            columns = [simplify_column(batch.column(name)) for batch in _iterate_batches(stream)]
            return find_extremes(pa.chunked_array(columns)) if columns else None

        values = self._read_file(file, read)
        return None if isinstance(values, ConfigError) else values

    def _has_values(self, file: InputFile, name: str) -> bool:
        """Tell whether a column has a value, or can't be read."""

        def read(stream: pa.NativeFile) -> bool:
            columns = (simplify_column(batch.column(name)) for batch in _iterate_batches(stream))
            return any(column.null_count < len(column) for column in columns)

        found = self._read_file(file, read)
        return isinstance(found, ConfigError) or found

    def _read_each(
        self, files: list[InputFile], read: Callable[[pa.NativeFile], T]
    ) -> dict[InputFile, T]:
        """Call `read` for each file; leave out bad ones. Raises ConfigError if all are bad."""
        found = map_parallel(lambda file: self._read_file(file, read), files)
        results = dict(zip(files, found, strict=True))
        good = {file: r for file, r in results.items() if not isinstance(r, ConfigError)}
        if results and not good:
            raise next(r for r in results.values() if isinstance(r, ConfigError))
        return good

    def _open(self, path: str) -> pa.NativeFile:
        filesystem, inner = open_filesystem(path, self.options)
        if isinstance(filesystem, LocalFileSystem):
            return pa.memory_map(inner)  # skipped batches are not read
        return pa.PythonFile(filesystem.open(inner, "rb"), mode="r")

    def _read_file(self, file: InputFile, read: Callable[[pa.NativeFile], T]) -> T | ConfigError:
        """Call `read`; return the error of a bad file. Raises ConfigError if it is not at fault."""

        def attempt() -> T:
            with self._open(file.path) as stream:
                return read(stream)

        return read_or_explain(attempt, file.path, "Arrow")


def _open_reader(stream: pa.NativeFile) -> Any:
    mark = stream.read(len(_FILE_MARK))
    stream.seek(0)
    if mark.startswith(_FEATHER_1):
        raise ValueError("it is Feather of version 1: write it again, as version 2 or as Parquet")
    return pa.ipc.open_file(stream) if mark == _FILE_MARK else pa.ipc.open_stream(stream)


def _cast_batch(
    rows: pa.RecordBatch, schema: pa.Schema
) -> tuple[pa.Table, list[tuple[int, BaseException]]]:
    """Cast rows that may be damaged: Arrow does not check what it reads from a file."""
    try:
        for column in rows.columns:
            _check_layout(column)
    except pa.ArrowInvalid as error:
        reason = ValueError(f"the rows' record batch is damaged: {error}")
        return make_null_rows(schema, rows.num_rows), [(i, reason) for i in range(rows.num_rows)]
    return cast_valid_rows(rows, schema)


def _check_layout(column: pa.Array) -> None:
    """Check what must be right before rows are taken. Texts may hold bytes that are not UTF-8.

    Raises ArrowInvalid.
    """
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        kind = map_types(column.type, _find_bytes_type)
        if kind == column.type:
            raise
        column.view(kind).validate(full=True)


def _find_bytes_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, map_types(kind.value_type, _find_bytes_type))
    return _BYTES.get(kind, kind)


def _read_schema(stream: pa.NativeFile) -> pa.Schema:
    return check_names(_open_reader(stream).schema)


def _count_rows_and_bytes(stream: pa.NativeFile) -> tuple[int, int]:
    """Return the rows and the bytes of a file."""
    _read_schema(stream)
    stream.seek(0)
    sizes = [(batch.num_rows, batch.nbytes) for batch in _iterate_batches(stream)]
    return sum(rows for rows, _ in sizes), sum(bytes for _, bytes in sizes)


def _iterate_batches(stream: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    reader = _open_reader(stream)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from reader
        # To Arrow, a stream that was cut off between two batches seems complete.
        stream.seek(max(stream.tell() - len(_STREAM_END), 0))
        if stream.read(len(_STREAM_END)) != _STREAM_END:
            raise EOFError("the stream is incomplete: its end mark is missing")
