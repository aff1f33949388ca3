"""Cast files that have types to those that `input.schema` declares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipemill.errors import ConfigError

from ...arrow_arrays import scatter_rows
from ...batch import Batch
from ...faults.bisect import bisect_failures
from ...split import Split
from ...storage.input_file import InputFile
from ..base import FileSource
from ..parsing.misfits import Misfit
from ..reading import Reading
from ..split_ranges import SplitRange


@dataclass(frozen=True)
class DeclaredSource:
    """Files that have types, cast to those that `input.schema` declares.

    format: the source of the files' format.
    """

    format: type[FileSource]
    options: dict[str, Any]
    schema: pa.Schema | None
    reading: Reading

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        inferred = self._as_it_is.infer_schema(files)
        schema = self.reading.declare(inferred)
        for old, new in zip(inferred, schema, strict=True):
            try:
                pa.array([], old.type).cast(new.type)
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
                raise ConfigError(
                    f"input.schema.{new.name}: the input's column is {old.type}, which can't be "
                    f"cast to {new.type}"
                ) from None
        return schema

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> Iterable[SplitRange]:
        return self._as_it_is.plan_splits(files, rows_per_part, limit)

    def read(self, split: Split) -> Batch:
        assert self.schema is not None
        if split.stop < 0:  # a bad file
            return self._open(self.schema).read(split)
        file = split.file
        inferred = self._open(None).infer_schema([file])
        known = self.reading.types.keys() & set(inferred.names)  # a file may lack some
        fields = [
            inferred.field(field.name) if field.name in known else field for field in self.schema
        ]
        batch = self._open(pa.schema(fields)).read(split)
        for index, field in enumerate(self.schema):
            if field.name in self.reading.types:
                column = self._cast(batch, field, split)
                batch.rows = batch.rows.set_column(index, field, column)
        return batch

    @cached_property
    def _as_it_is(self) -> FileSource:
        """The files as they are; what their columns were inferred from is planned, too."""
        return self._open(None)

    def _open(self, schema: pa.Schema | None) -> FileSource:
        return self.format(self.options, schema, Reading(kinds=self.reading.kinds))

    def _cast(self, batch: Batch, field: pa.Field, split: Split) -> pa.Array:
        values = batch.rows[field.name].combine_chunks()
        kind = pa.schema([field])
        pieces, wrong = bisect_failures(
            np.arange(len(values)),
            lambda some: pa.table([values.take(pa.array(some)).cast(field.type)], schema=kind),
        )
        for row, _ in wrong:
            where = f"row {split.start + row + 1} of {split.path}"
            batch.add_failure(
                "read", row, Misfit(field.name, values[row].as_py(), field.type, where)
            )
        return scatter_rows(pieces, len(values), kind)[0]
