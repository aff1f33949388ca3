"""Open the files of a format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipemill.errors import ConfigError

from ..batch import Batch, join_files
from ..split import Split
from ..storage.backoff import retry_on_driver, retry_with_backoff
from ..storage.file_names import find_compression
from ..storage.input_file import InputFile
from ..storage.object_versions import check_object
from ..storage.parallel import map_parallel
from ..storage.partitions import infer_partition_fields, is_partition_field, read_partition_values
from .base import FileSource, Source
from .reading import Reading
from .registry import find_source, list_sources
from .schemas.declared_types import DeclaredSource
from .split_ranges import SplitRange
from .streams.kept_streams import StreamEnded


@dataclass(frozen=True)
class RetryingSource:
    """A source that waits for its store to return, and adds the columns that folders name.

    schema: the columns to read; those that folders name are last.
    """

    source: Source
    schema: pa.Schema | None
    reading: Reading
    options: Mapping[str, Any]

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        schema = retry_on_driver(lambda: self.source.infer_schema(files), "the input")
        if not schema.names and not any(file.size for file in files):
            return schema  # an input without rows
        if isinstance(self.source, FileSource) and self.source.values == "fixed":
            self._refuse_types(schema)
        added = infer_partition_fields(
            [file.partitions for file in files], schema.names, self.reading.types
        )
        if added:
            schema = pa.schema([*schema, *added], metadata=schema.metadata)
        self.reading.check(schema)
        return schema

    def _refuse_types(self, schema: pa.Schema) -> None:
        for name in self.reading.types:
            if name in schema.names:
                raise ConfigError(
                    f"input.schema applies to {_describe_formats('text', 'typed')}, and to columns "
                    f"that folders name; the type of {name!r} can't be changed: leave it out"
                )

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> Iterable[SplitRange]:
        return retry_on_driver(
            lambda: self.source.plan_splits(files, rows_per_part, limit), "the input"
        )

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        if not split.path:  # an input without rows
            return Batch(self.schema.empty_table())
        if files := split.list_file_splits():
            is_remote = "://" in split.path  # it takes long to answer
            return join_files((map_parallel if is_remote else map)(self._read_one, files))
        return self._read_one(split)

    def _read_one(self, split: Split) -> Batch:
        """Read a file, a range of one, or a bundle of files that are a row each."""
        assert self.schema is not None
        may_grow = isinstance(self.source, FileSource) and self.source.values == "text"
        # The others say themselves what has become of a file, and which rows it costs.
        is_range = split.stop >= 0 and not split.bundle
        if is_range or (may_grow and find_compression(split.path) is None):
            split.file.check_size(may_grow=may_grow)
        try:
            batch = retry_with_backoff(lambda: self._read_anew(split), split.path)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{split.path} no longer exists: put it back, or leave out the rows that are left "
                "of it with run --on-changed reprocess (on_changed='reprocess')"
            ) from None
        if not split.bundle:
            retry_with_backoff(lambda: check_object(split.file, self.options), split.path)
        for field in filter(is_partition_field, self.schema):
            files = split.files()
            values = read_partition_values(field, [file.path for file in files])
            if len(files) == 1:
                values = pa.repeat(values[0], batch.rows.num_rows)
            batch.rows = batch.rows.append_column(field.name, values)
        return batch

    def _read_anew(self, split: Split) -> Batch:
        """Read a split; if a kept stream ended, at once from a new one."""
        try:
            return self.source.read(split)
        except StreamEnded:
            return self.source.read(split)


def open_source(
    format: str,
    options: Mapping[str, Any],
    schema: pa.Schema | None = None,
    reading: Reading | None = None,
) -> Source:
    """Open the files of a format.

    Args:
        format: its name.
        options: storage options for fsspec.
        schema: the columns to read; None before they are known.
        reading: how the task and the user want the values.

    Raises:
        ConfigError: the format does not exist, or can't be read as `reading` says.
    """
    source = find_source(format)
    reading = reading or Reading()
    if reading.encoding is not None and source.values != "text":
        raise ConfigError(
            f"input.encoding applies to {_describe_formats('text')}; the input is {format}: "
            "remove input.encoding"
        )
    keys = ["input.delimiter"] * (reading.delimiter is not None)
    keys += ["input.quotes"] * (not reading.quotes)
    if keys and format != "csv":
        remedy = "set input.format to csv, or " if format == "text" else ""
        raise ConfigError(
            f"{keys[0]} applies to CSV; the input is {format}: {remedy}remove {keys[0]}"
        )
    read = schema and pa.schema([f for f in schema if not is_partition_field(f)])
    opened: Source
    if reading.types and source.values == "typed":
        opened = DeclaredSource(source, dict(options), read, reading)
    else:
        opened = source(dict(options), read, reading)
    return RetryingSource(opened, schema, reading, options)


def _describe_formats(*values: str) -> str:
    names = [name for name, source in list_sources().items() if source.values in values]
    return f"{', '.join(names[:-1])} and {names[-1]}"
