"""Cast files that have types to those that `input.schema` declares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipemill.errors import ConfigError

from ...arrow_arrays import scatter_rows
from ...batch import Batch
from ...columns import is_number
from ...faults.bisect import bisect_failures
from ...split import Split
from ...storage.input_file import InputFile
from ..base import FileSource
from ..parsing.csv_values import find_loss
from ..parsing.misfits import Misfit
from ..parsing.text_casts import cast_texts
from ..reading import Reading
from ..split_ranges import SplitRange

# Texts, and bytes that may be: some writers of Parquet do not note which are.
_TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
# The errors of some sums, as shares of the sum.
_ERRORS = {pa.float32(): 1e-6, pa.float64(): 1e-13}


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
                _cast_values(pa.array([], old.type), new.type)
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
            lambda some: pa.table(
                [_cast_values(values.take(pa.array(some)), field.type)], schema=kind
            ),
        )
        column = scatter_rows(pieces, len(values), kind)[0]

        def where(row: int) -> str:
            return f"row {split.start + row + 1} of {split.path}"

        for row, _ in wrong:
            misfit = Misfit(field.name, values[row].as_py(), field.type, where(row))
            batch.add_failure("read", row, misfit)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if values.type in _TEXTS and pa.types.is_floating(field.type):
            for row, error in find_loss(values.cast(pa.binary()), column, field, where):
                batch.add_failure("read", row, error)
        return column


def _cast_values(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast values. Raises an ArrowException where one of another type of numbers would change.

    A float may have fewer digits than the one before, or than a text.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if values.type in _TEXTS and kind not in _TEXTS:
        return cast_texts(values.cast(pa.string()), kind)
    if pa.types.is_decimal(kind) and values.type in (pa.float32(), pa.float64()):
        # By its digits: Arrow makes another float of the decimal 0.35 than the nearest one.
        return cast_texts(_round_computed(values, kind.scale).cast(pa.string()), kind)
    if pa.types.is_decimal(values.type) and pa.types.is_floating(kind):
        # By its digits, too: of the decimal 56910.09 Arrow makes another float than the nearest.
        values = values.cast(pa.string()).cast(pa.float64())
    is_whole = pa.types.is_integer(values.type)
    if is_whole and pa.types.is_decimal(kind):  # Arrow wants room for all digits of the type
        return values.cast(pa.decimal128(20)).cast(kind)
    cast = values.cast(kind)
    is_float = pa.types.is_floating(values.type)
    if is_float and pa.types.is_floating(kind):
        lost = pc.and_(_is_finite(values), pc.invert(_is_finite(cast)))
    elif (is_whole or is_float) and (is_number(kind) or pa.types.is_boolean(kind)):
        lost = pc.not_equal(cast.cast(values.type, safe=is_whole), values)
    else:
        return cast
    if pc.any(lost).as_py():
        raise pa.ArrowInvalid(f"{kind} can't hold it")
    return cast


def _round_computed(values: pa.Array, digits: int) -> pa.Array:
    """Round fractions that lose no more than computing adds: 0.1 + 0.2 is 0.30000000000000004."""
    rounded = pc.round(values, digits)
    lost = pc.abs(pc.subtract(values, rounded))
    is_little = pc.less_equal(lost, pc.multiply(pc.abs(values), _ERRORS[values.type]))
    return pc.if_else(is_little, rounded, values)


def _is_finite(floats: pa.Array) -> pa.Array:
    return pc.is_finite(floats.cast(pa.float64()))
