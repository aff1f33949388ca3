"""Convert the columns of files that have types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...arrow_arrays import scatter_rows
from ...faults.bisect import bisect_failures


def find_repeated_name(names: list[str]) -> str | None:
    """Return a name that two columns have, the first in the alphabet; None if there is none."""
    return min((name for name, count in Counter(names).items() if count > 1), default=None)


def check_names(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a file. Raises ValueError for two columns with the same name."""
    if (twice := find_repeated_name(schema.names)) is not None:
        raise ValueError(f"it has two columns named {twice!r}: rename one")
    return schema


def explain_lacking(schema: pa.Schema, names: list[str], where: str) -> dict[str, str]:
    """Return why a column is null in all rows of a file, or of a place in it, by name.

    names: the columns that are there.
    """
    has = ", ".join(names) or "none"
    has = has if len(has) <= 200 else f"{has[:200]}…"
    return {
        name: f"there is no column {name!r} in {where} (columns: {has})"
        for name in schema.names
        if name not in names
    }


def simplify_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema without metadata, with the types in which values are handled."""
    return pa.schema([pa.field(field.name, _simplify_type(field.type)) for field in schema])


def cast_rows(rows: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast rows to a schema; a column that they lack is null.

    Raises an ArrowException that names the column of a value that does not fit.
    """
    columns = [_cast_column(rows, field) for field in schema]
    return pa.table(columns, schema=schema)


def cast_valid_rows(
    rows: pa.RecordBatch | pa.Table, schema: pa.Schema
) -> tuple[pa.Table, list[tuple[int, BaseException]]]:
    """Cast rows to a schema. A value that does not fit is null, and its row has an error."""
    try:
        return cast_rows(rows, schema), []
    except pa.ArrowException:
        columns: list[pa.ChunkedArray] = []
        errors: dict[int, BaseException] = {}
        for field in schema:
            column, wrong = _cast_valid_values(rows, field)
            columns.append(column)
            errors = dict(wrong) | errors
        return pa.table(columns, schema=schema), sorted(errors.items(), key=itemgetter(0))


def _cast_valid_values(
    rows: pa.RecordBatch | pa.Table, field: pa.Field
) -> tuple[pa.ChunkedArray, list[tuple[int, BaseException]]]:
    """Return a column in a field's type, null where a value does not fit, and the errors."""
    schema = pa.schema([field])
    if rows.schema.get_field_index(field.name) < 0:
        return cast_rows(rows, schema)[0], []
    # Each row has its value alone, not the whole dictionary, of which another may be wrong.
    table = pa.table({field.name: _decode_dictionary(simplify_column(rows.column(field.name)))})
    pieces, wrong = bisect_failures(
        np.arange(rows.num_rows), lambda some: cast_rows(table.take(some), schema)
    )
    return scatter_rows(pieces, rows.num_rows, schema)[0], wrong


def _cast_column(rows: pa.RecordBatch | pa.Table, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if rows.schema.get_field_index(field.name) < 0:
        return pa.nulls(rows.num_rows, field.type)
    try:
        column = simplify_column(rows.column(field.name))
        if column.type != field.type:
            # Arrow casts no nulls between some types.
            is_empty = column.null_count == rows.num_rows
            column = pa.nulls(len(column), field.type) if is_empty else _cast(column, field.type)
        # Arrow reads bytes that are not UTF-8 as text, which other readers of the output refuse.
        column.validate(full=True)
        _check_seconds(column)
    except pa.ArrowException as error:
        why = "it holds a text that is not UTF-8" if "Invalid UTF8" in str(error) else error
        raise type(error)(f"column {field.name!r}: {why}") from None
    return column


def _cast(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    texts = map_types(column.type, _replace_decimal)
    if texts != column.type and map_types(kind, _replace_float) != kind:
        # Arrow makes another float of the decimal 56910.09 than the nearest one. No whole number is
        # written as 12.00.
        with suppress(pa.ArrowInvalid):
            return column.cast(texts).cast(kind)
    return column.cast(kind)


def _replace_decimal(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_decimal(kind) else kind


def _replace_float(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_floating(kind) else kind


def _check_seconds(column: pa.Array | pa.ChunkedArray) -> None:
    """Raise ArrowInvalid for a time that no part holds: Parquet has no times in seconds."""
    kind = map_types(column.type, _to_milliseconds)
    if kind != column.type:
        column.cast(kind)


def _to_milliseconds(kind: pa.DataType) -> pa.DataType:
    in_seconds = pa.types.is_timestamp(kind) and kind.unit == "s"
    return pa.timestamp("ms", kind.tz) if in_seconds else kind


def simplify_column(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return the values in the type that `simplify_schema` gives their column."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    if pa.types.is_dictionary(column.type) and column.type.value_type in _WITHOUT_VIEW:
        column = column.cast(_simplify_type(column.type))
    if pa.types.is_nested(column.type) and holds_dictionary(column.type):
        kind = _simplify_type(column.type)  # their entries may be null, too
        column = _decode_dictionary(column.cast(kind)).cast(kind)
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    elif _holds_nested(column.type):
        column = _decode_dictionary(column)
    elif _has_null_entries(column):  # which can't be written
        column = _decode_dictionary(column).dictionary_encode().cast(column.type)
    kind = _simplify_type(column.type)
    return column if column.type == kind else column.cast(kind)


def make_null_rows(schema: pa.Schema, count: int) -> pa.Table:
    """Return rows of nulls."""
    return pa.table([pa.nulls(count, field.type) for field in schema], schema=schema)


def map_types(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Apply `change` to a type and to all types in it; return the same type if nothing changes.

    Values inside may be null afterwards: another file may lack them, and a dead row has none.
    """

    def map_field(field: pa.Field) -> pa.Field:
        return field.with_type(map_types(field.type, change)).with_nullable(True)

    mapped = kind
    if pa.types.is_struct(kind):
        mapped = pa.struct([map_field(field) for field in kind])
    elif pa.types.is_map(kind):
        mapped = pa.map_(map_types(kind.key_type, change), map_types(kind.item_type, change))
    elif pa.types.is_list(kind):
        mapped = pa.list_(map_field(kind.value_field))
    elif pa.types.is_large_list(kind):
        mapped = pa.large_list(map_field(kind.value_field))
    elif pa.types.is_fixed_size_list(kind):
        mapped = pa.list_(map_field(kind.value_field), kind.list_size)
    return change(kind if mapped == kind else mapped)


def _simplify_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_run_end_encoded(kind) or _holds_nested(kind):
        kind = kind.value_type
    kind = map_types(kind, _replace_type)
    return map_types(kind, _decode_type) if pa.types.is_nested(kind) else kind


def _decode_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a dictionary's values, if Arrow can't encode them anew."""
    return kind if _is_encodable(kind) else _find_value_type(kind)


def _is_encodable(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) and kind.value_type in _ENCODABLE


# Of which Arrow makes dictionaries.
_ENCODABLE = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_WITHOUT_VIEW = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def _replace_type(kind: pa.DataType) -> pa.DataType:
    # A worker may not know the type, since it did not import the library that defines it.
    if isinstance(kind, pa.BaseExtensionType):
        return map_types(kind.storage_type, _replace_type)
    # Arrow can't take rows of a view column.
    if kind in _WITHOUT_VIEW:
        return _WITHOUT_VIEW[kind]
    if pa.types.is_dictionary(kind) and kind.value_type in _WITHOUT_VIEW:  # as polars writes them
        return pa.dictionary(kind.index_type, _WITHOUT_VIEW[kind.value_type], kind.ordered)
    # Arrow writes a file of lists without items that it can't read again.
    if pa.types.is_fixed_size_list(kind) and not kind.list_size:
        return pa.list_(kind.value_field)
    return kind


def holds_dictionary(kind: pa.DataType) -> bool:
    """Tell whether a type is a dictionary, or has one inside."""
    return map_types(kind, _find_value_type) != map_types(kind, lambda same: same)


def _find_value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _holds_nested(kind: pa.DataType) -> bool:
    """Tell whether a type is a dictionary of lists or structs: Arrow can't combine them."""
    return pa.types.is_dictionary(kind) and pa.types.is_nested(kind.value_type)


def _has_null_entries(column: pa.Array | pa.ChunkedArray) -> bool:
    """Tell whether a column is a dictionary of which an entry is null."""
    if not pa.types.is_dictionary(column.type):
        return False
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return any(chunk.dictionary.null_count for chunk in chunks)


def _decode_dictionary(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if not pa.types.is_dictionary(column.type):
        kind = map_types(column.type, _find_value_type)
        return column if kind == column.type else column.cast(kind)
    if isinstance(column, pa.ChunkedArray):
        chunks = [chunk.dictionary_decode() for chunk in column.chunks]
        return pa.chunked_array(chunks, column.type.value_type)
    return column.dictionary_decode()
