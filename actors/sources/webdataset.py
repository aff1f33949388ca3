"""Read WebDataset shards: tars in which adjacent members with the same key are a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from pipemill.errors import ConfigError

from ..batch import Batch
from ..split import Split
from ..storage.input_file import InputFile
from .bad_file import BAD_FILE
from .base import FileSource
from .byte_ranges import (
    LARGE_FILE,
    SAMPLED_FILES,
    SAMPLED_ROWS,
    ByteRangePlanner,
    put_sample_first,
)
from .parsing.tar_samples import Sample, read_samples
from .schemas.media_columns import (
    MEDIA_KINDS,
    list_members,
    make_member_column,
    merge_columns,
    takes_first,
)
from .split_ranges import MOST_BYTES, SplitRange
from .streams.kept_streams import Place, identify, place_before, seeks_slowly
from .streams.line_files import LineFiles

_KEY = "__key__"
_TEXT = set(
    "txt text cls cls2 caption transcript id index json jsonl csv tsv html md xml yaml yml".split()
)
# From this many shards on, each is a split, unless it is very large.
_MANY, _VERY_LARGE = 64, 256 * 2**20
# From this many on, no shard is read to plan its splits, since all of them may be a hundred
# terabytes. Where a range begins, a worker finds out by the headers before it, or goes on where the
# range before it ended: of so many shards, Ray gives most ranges of one to one actor.
_VERY_MANY = 1000
# A tar without members is not longer than this.
_RECORD = 10240


@dataclass
class WebDatasetSource(FileSource):
    """Columns: __key__, and one per extension: text, or the bytes of the member.

    An extension that none of the sampled shards has is left out.
    """

    name = "webdataset"
    suffixes = (".tar", ".tgz")
    compressible = True
    columns_from_rows = True

    @classmethod
    def combine_columns(cls, schema: pa.Schema, names: Iterable[str]) -> list[pa.Field]:
        return merge_columns(schema, names)

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        extensions: set[str] = set()
        repeated: set[str] = set()
        error: Exception | None = None
        for number, file in enumerate(put_sample_first(files)):
            if number >= SAMPLED_FILES and extensions:
                break
            for sample in islice(self._read_headers(file), SAMPLED_ROWS):
                names = sample.members.keys() - {_KEY}
                extensions |= names
                repeated |= _find_same_kind(names)
                error = error or (_locate_error(sample, file.path) if sample.torn else None)
        if not extensions:
            if error is not None:
                raise ConfigError(f"can't read {error}")
            if not all(map(self._is_empty, files)):
                raise ConfigError(
                    f"no sample in {files[0].path}: a WebDataset shard is a tar with members such "
                    "as 0001.jpg and 0001.txt"
                )
        columns = (_make_column(name, name not in repeated) for name in sorted(extensions))
        return pa.schema([pa.field(_KEY, pa.string()), *columns])

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        large = LARGE_FILE if len(files) < _MANY else _VERY_LARGE
        cuts = len(files) >= _VERY_MANY
        planner = ByteRangePlanner(
            row_offsets=lambda file: (
                (sample.start, sample.stop) for sample in self._read_headers(file)
            ),
            can_cut_anywhere=lambda file: cuts and file.size > large and bool(file.version),
            large_file=large,
            cuts_small_files=False,
            most_bytes=MOST_BYTES,
            keeps_empty=True,
            most_rows=self.most_rows,
        )
        files = [file for file in files if file.size > _RECORD or not self._is_empty(file)]
        return planner.plan(files, rows_per_part, limit)

    def read(self, split: Split) -> Batch:
        schema = self.schema
        assert schema is not None
        extensions = {name for field in schema for name in list_members(field) or [field.name]}
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        failed: dict[int, Exception] = {}
        files = LineFiles(self.options, blank=False)
        file, start = identify(split.file, self.options), split.start
        # Of ranges between samples it is known how many they are.
        is_cut = split.rows is None and split.stop >= 0
        stop = -1 if is_cut and split.stop >= split.size else split.stop
        with place_before(file, "tar", start, lambda: Place(files.open(split.path))) as place:
            samples = read_samples(place, start, stop, extensions.__contains__, is_cut)
            for number, sample in enumerate(samples):
                row, error = _to_row(sample, schema)
                if sample.torn:
                    error = _locate_error(sample, split.path)
                    if place.is_old:  # a new stream may read on
                        raise error
                for name, values in columns.items():
                    values.append(row.get(name))
                if error:
                    failed[number] = error
            is_slow = is_cut or seeks_slowly(split.path, place.stream)
            place.stays = place.stays and stop >= 0 and is_slow
        batch = Batch(pa.table(columns, schema=schema))
        for number, error in failed.items():
            batch.add_failure("read", number, error)
        return batch

    def _is_empty(self, file: InputFile) -> bool:
        """Tell whether a file is a tar without members."""
        try:
            with LineFiles(self.options, blank=False).open(file.path) as stream:
                start = stream.read(1024)
        except (OSError, *BAD_FILE):
            return False
        return bool(start) and not start.strip(b"\0")

    def _read_headers(self, file: InputFile) -> Iterator[Sample]:
        """Yield the samples of a file without their bytes."""
        try:
            with LineFiles(self.options, blank=False).open(file.path) as stream:
                yield from read_samples(Place(stream), 0, -1, lambda extension: False)
        except (OSError, *BAD_FILE) as error:
            raise ConfigError(f"can't read {file.path}: {error}") from None


def _locate_error(sample: Sample, path: str) -> Exception:
    return ValueError(f"{path}: {sample.error}")


def _find_same_kind(names: Collection[str]) -> set[str]:
    """Return the extensions of a sample that share their kind of media with another one."""
    groups = [{name for name in names if name in ends} for ends in MEDIA_KINDS.values()]
    return {name for group in groups if len(group) > 1 for name in group}


def _make_column(extension: str, alone: bool) -> pa.Field:
    # The last suffix tells the type: cat.seg.png is a picture, cat.en.txt a text.
    if extension.rpartition(".")[2] in _TEXT:
        return pa.field(extension, pa.string())
    return make_member_column(extension, alone)


def _to_row(sample: Sample, schema: pa.Schema) -> tuple[dict[str, Any], Exception | None]:
    """Return the columns of a sample, and its error; then it has a key at most."""
    row: dict[str, Any] = {_KEY: sample.key or None}
    if sample.error is not None:
        return row, sample.error
    try:
        for field in schema:
            if field.name != _KEY:
                row[field.name] = _get_value(sample, field)
    except ValueError as error:
        return {_KEY: sample.key}, error
    return row, None


def _get_value(sample: Sample, field: pa.Field) -> str | bytes | None:
    """Return a sample's value for a column.

    Raises ValueError for text that is not UTF-8, and for several members of a column of one.
    """
    ends = list_members(field) or (field.name,)
    present = [end for end in ends if sample.members.get(end) is not None]
    if not present:
        return None
    if len(present) > 1 and not takes_first(field):
        raise ValueError(
            f"sample {sample.key} has several members for {field.name!r} ({', '.join(present)}): "
            f"name one with --column {field.name}={present[0]} (input.columns)"
        )
    data = sample.members[present[0]]
    assert data is not None
    if not pa.types.is_string(field.type):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{sample.key}.{present[0]} is not UTF-8: {error}") from None
