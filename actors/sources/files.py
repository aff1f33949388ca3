"""Read whole files, such as images and recordings, a row each. Splits are bundles of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..batch import Batch
from ..split import Split
from ..storage.backoff import is_forbidden, is_transient
from ..storage.file_names import find_member
from ..storage.filesystem import open_filesystem
from ..storage.input_file import InputFile
from .base import FileSource
from .schemas.media_columns import MEDIA_SUFFIXES, find_media_kind, make_files_column
from .split_ranges import MOST_BYTES, MOST_FILES, SplitRange, group_neighbours, make_bundle

_FEWEST_FILES = 64
# A few large files make as many splits as many small ones do.
_FEWEST_BYTES = 4 * 2**20
_SPLITS = 32
_THREADS = 16


@dataclass
class FilesSource(FileSource):
    """Columns: path, as listed, and bytes, which are a text where the task reads one."""

    name = "files"
    suffixes = MEDIA_SUFFIXES
    is_companion = True
    takes_any_file = True

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        kinds = {kind for file in files if (kind := find_media_kind(find_member(file.path)))}
        column = make_files_column("bytes", kinds)
        if self.reading.kinds.get("bytes") == "text":
            column = column.with_type(pa.large_string())
        return pa.schema([pa.field("path", pa.string()), column])

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        files = files[:limit]
        if rows_per_part:
            return _bundle_files(files, rows_per_part, float("inf"))
        count = min(max(len(files) // _SPLITS, _FEWEST_FILES), MOST_FILES)
        size = sum(file.size for file in files) // _SPLITS
        most = min(max(size, _FEWEST_BYTES), MOST_BYTES)
        return _bundle_files(files, count, most)

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        files = split.bundle
        rows: dict[str, list[Any]] = {"path": [file.path for file in files]}
        failed: dict[int, Exception] = {}
        if "bytes" in self.schema.names:
            with ThreadPoolExecutor(_THREADS) as threads:
                contents: list[Any] = list(threads.map(self._read_file, files))
            if self.schema.field("bytes").type == pa.large_string():
                contents = [_decode(value) for value in contents]
            rows["bytes"] = [None if isinstance(one, Exception) else one for one in contents]
            failed = {i: value for i, value in enumerate(contents) if isinstance(value, Exception)}
            _check_access(files, failed)
        batch = Batch(pa.table({f.name: rows[f.name] for f in self.schema}, schema=self.schema))
        for row, error in failed.items():
            batch.add_failure("read", row, error)
        return batch

    def _read_file(self, file: InputFile) -> bytes | Exception:
        try:
            filesystem, path = open_filesystem(file.path, self.options)
            data = filesystem.cat_file(path)
            # Some servers do not say how long a file is.
            if file.size and len(data) != file.size:
                raise OSError(
                    f"{file.path} has {len(data)} bytes, but had {file.size} when planned"
                )
        except Exception as error:  # filesystems raise exceptions of many classes
            if is_transient(error):  # the store is at fault, not the row
                raise
            return error
        return data


def _decode(content: bytes | Exception) -> str | Exception:
    if isinstance(content, Exception):
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        error.reason += " (files that are read as texts are UTF-8)"
        return error


def _check_access(files: Sequence[InputFile], failed: Mapping[int, Exception]) -> None:
    """Raise the error if all of several files are refused: credentials may have expired."""
    if 1 < len(files) == len(failed):
        refused = [error for error in failed.values() if is_forbidden(error)]
        if len(refused) == len(files):
            raise refused[0]


def _bundle_files(files: list[InputFile], count: int, most_bytes: float) -> list[SplitRange]:
    """Bundle neighbours: at most `count`, and more than one only up to `most_bytes`."""
    groups = group_neighbours(((file, file.size) for file in files), count, most_bytes)
    return [make_bundle(group, rows=len(group), stop=len(group)) for group in groups]
