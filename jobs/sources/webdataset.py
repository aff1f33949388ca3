"""WebDataset shards: tars in which the members of one key, next to each other, are a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
from pipemill.actors.batch import Batch

from ..errors import ConfigError
from ..listing import InputFile
from ..media import files_column
from .lines import LARGE, SAMPLED_FILES, SAMPLED_ROWS, LineFiles, cut_by_reading, spread
from .ranges import MOST_BYTES, Piece
from .tar import Sample, samples

_KEY = "__key__"
_TEXT = set(
    "txt text cls cls2 caption transcript id index json jsonl csv tsv html md xml yaml yml".split()
)
# So many shards are splits enough, if they are not very large.
_MANY, _VERY_LARGE = 64, 256 * 2**20


@dataclass
class WebDatasetSource:
    """Columns: __key__, and one per extension: text, or the bytes of the member.

    An extension that none of the sampled shards has is left out.
    """

    options: dict[str, Any]
    schema: pa.Schema | None = None

    def inspect(self, files: list[InputFile]) -> pa.Schema:
        extensions: set[str] = set()
        for file in spread(files, SAMPLED_FILES):
            for sample in islice(self._samples(file), SAMPLED_ROWS):
                extensions |= sample.members.keys() - {_KEY}
        if not extensions:
            raise ConfigError(
                f"no sample in {files[0].path}: a WebDataset shard is a tar with members such as "
                "0001.jpg and 0001.txt"
            )
        return pa.schema([pa.field(_KEY, pa.string()), *map(_column, sorted(extensions))])

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[Piece]:
        return cut_by_reading(
            files,
            rows_per_part,
            limit,
            lambda file: ((sample.start, sample.stop) for sample in self._samples(file)),
            large=LARGE if len(files) < _MANY else _VERY_LARGE,
            most_bytes=MOST_BYTES,
        )

    def read(self, split: dict[str, Any]) -> Batch:
        schema = self.schema
        assert schema is not None
        wanted = set(schema.names)
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        failed: dict[int, Exception] = {}
        with LineFiles(self.options, blank=False).open(split["path"]) as stream:
            found = samples(stream, split["start"], split["stop"], wanted.__contains__)
            for number, sample in enumerate(found):
                row, error = _row(sample, schema)
                for name, values in columns.items():
                    values.append(row.get(name))
                if error:
                    failed[number] = error
        batch = Batch(pa.table(columns, schema=schema))
        for number, error in failed.items():
            batch.fail("read", number, error)
        return batch

    def _samples(self, file: InputFile) -> Iterator[Sample]:
        """Those of a whole file, by its headers alone."""
        try:
            with LineFiles(self.options, blank=False).open(file.path) as stream:
                yield from samples(stream, 0, -1, lambda extension: False)
        except (OSError, EOFError) as error:
            raise ConfigError(f"can't read {file.path}: {error}") from None


def _column(extension: str) -> pa.Field:
    # What follows the last dot says what it is: cat.seg.png is a picture, cat.en.txt a text.
    if extension.rpartition(".")[2] in _TEXT:
        return pa.field(extension, pa.string())
    return files_column(extension)


def _row(sample: Sample, schema: pa.Schema) -> tuple[dict[str, Any], Exception | None]:
    """Its columns, and why it is none if it is not: then it has a key at most."""
    error = sample.error
    row: dict[str, Any] = {_KEY: sample.key or None}
    if error is None:
        try:
            for name, data in sample.members.items():
                if name in schema.names and name != _KEY and data is not None:
                    text = pa.types.is_string(schema.field(name).type)
                    row[name] = data.decode() if text else data
        except UnicodeDecodeError as wrong:
            error = ValueError(f"{sample.key}.{name} is not UTF-8: {wrong}")
            row = {_KEY: sample.key}
    return row, error
