"""The columns of files that each tell their own."""

from __future__ import annotations

import pyarrow as pa

from ..errors import ConfigError
from ..listing import InputFile


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


def plain(schema: pa.Schema) -> pa.Schema:
    """Without notes, and with the types in which the values are handled."""
    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


def shaped(rows: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """The schema's columns, of its types."""
    columns = []
    for field in schema:
        column = rows.column(field.name)
        if isinstance(column.type, pa.BaseExtensionType):
            column = column.cast(column.type.storage_type)
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    # Arrow takes rows out of no view column; the same values as text and bytes.
    if kind in (pa.string_view(), pa.binary_view()):
        return pa.string() if kind == pa.string_view() else pa.binary()
    # Known only where the library that defines it was imported, which it is not on a worker.
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    return kind
