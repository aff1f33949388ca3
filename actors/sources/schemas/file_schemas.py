"""The columns of files that each tell their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipemill.errors import ConfigError

from ...arrow_arrays import scatter_rows
from ...faults.bisect import bisect_failures
from ...storage.input_file import InputFile


def common_schema(files: list[InputFile], schemas: list[pa.Schema]) -> pa.Schema:
    """One schema for all; ConfigError names the first file that does not go with the others."""
    common = plain(schemas[0])
    for file, schema in zip(files, schemas, strict=True):
        odd = set(schema.names) ^ set(common.names)
        if odd:
            raise ConfigError(
                f"{file.path} and {files[0].path} have not the same columns: "
                f"{', '.join(sorted(odd))} is in one of them only"
            )
        if len(set(schema.names)) < len(schema.names):
            twice = min(name for name in schema.names if schema.names.count(name) > 1)
            raise ConfigError(f"{file.path} has two columns named {twice!r}: rename one")
        try:
            common = pa.unify_schemas([common, plain(schema)], promote_options="permissive")
        except pa.ArrowTypeError as error:
            raise ConfigError(
                f"{file.path} and {files[0].path} differ in a column's type: {error}"
            ) from None
    return common


def checked(schema: pa.Schema) -> pa.Schema:
    """The schema of a file. Raises ValueError for two columns of one name."""
    if len(set(schema.names)) < len(schema.names):
        twice = min(name for name in schema.names if schema.names.count(name) > 1)
        raise ValueError(f"it has two columns named {twice!r}: rename one")
    return schema


def plain(schema: pa.Schema) -> pa.Schema:
    """Without notes, and with the types in which the values are handled."""
    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


def shaped(rows: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """The schema's columns, of its types; null where the rows have no such column.

    Raises an ArrowException that names the column of a value that the type does not hold.
    """
    columns = [_column(rows, field) for field in schema]
    return pa.table(columns, schema=schema)


def fitted(
    rows: pa.RecordBatch | pa.Table, schema: pa.Schema
) -> tuple[pa.Table, list[tuple[int, BaseException]]]:
    """As `shaped`; rows with a value that their column does not hold are null, with the reason."""
    try:
        return shaped(rows, schema), []
    except pa.ArrowException:
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        names = [name for name in schema.names if name in table.schema.names]
        table = pa.table({name: plain_column(table[name]) for name in names})
        found, wrong = bisect_failures(
            np.arange(rows.num_rows), lambda some: shaped(table.take(some), schema)
        )
        return scatter_rows(found, rows.num_rows, schema), wrong


def _column(rows: pa.RecordBatch | pa.Table, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if rows.schema.get_field_index(field.name) < 0:
        return pa.nulls(rows.num_rows, field.type)
    column = plain_column(rows.column(field.name))
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise type(error)(f"column {field.name!r}: {error}") from None


def plain_column(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The values in the type that `plain` gives them."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    elif pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    kind = _plain(column.type)
    return column if column.type == kind else column.cast(kind)


def null_rows(schema: pa.Schema, count: int) -> pa.Table:
    return pa.table([pa.nulls(count, field.type) for field in schema], schema=schema)


def map_types(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The type with `change` of every type in it; the same one where nothing changes."""
    made = kind
    if pa.types.is_struct(kind):
        made = pa.struct([f.with_type(map_types(f.type, change)) for f in kind])
    elif pa.types.is_map(kind):
        made = pa.map_(map_types(kind.key_type, change), map_types(kind.item_type, change))
    elif pa.types.is_list(kind):
        made = pa.list_(kind.value_field.with_type(map_types(kind.value_type, change)))
    elif pa.types.is_large_list(kind):
        made = pa.large_list(kind.value_field.with_type(map_types(kind.value_type, change)))
    elif pa.types.is_fixed_size_list(kind):
        inner = kind.value_field.with_type(map_types(kind.value_type, change))
        made = pa.list_(inner, kind.list_size)
    return change(kind if made == kind else made)


def _plain(kind: pa.DataType) -> pa.DataType:
    # Known only where the library that defines it was imported, which it is not on a worker.
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    elif pa.types.is_run_end_encoded(kind):
        kind = kind.value_type
    return map_types(kind, _without_views)


def _without_views(kind: pa.DataType) -> pa.DataType:
    # Arrow takes rows out of no view column; the same values as text and bytes.
    if kind in (pa.string_view(), pa.binary_view()):
        return pa.string() if kind == pa.string_view() else pa.binary()
    return kind
