"""Which of the user's columns a task reads, and which are read and kept at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
from pipemill.actors.task import Column

from .errors import ConfigError, nearest


def resolve_columns(
    name: str,
    inputs: tuple[Column, ...],
    mapping: Mapping[str, str],
    parameters: Mapping[str, Any],
    schema: pa.Schema,
) -> dict[str, str]:
    """The task's columns to the user's. A column named like an input needs no mapping."""
    for wrong in set(mapping) - {column.name for column in inputs}:
        hint = nearest(wrong, [column.name for column in inputs])
        raise ConfigError(f"{name} reads no column {wrong!r} (input.columns); {hint}")
    found = {}
    for column in inputs:
        if column.name in mapping and column.name in parameters:
            raise ConfigError(
                f"{column.name!r} is given twice: in parameters, and as a column in input.columns"
            )
        own = mapping.get(column.name, column.name)
        if own in schema.names and column.name not in parameters:
            _check_type(name, column, schema.field(own))
            found[column.name] = own
        elif column.name in mapping:
            raise ConfigError(
                f"no column {own!r} in the input (input.columns.{column.name}); "
                f"{nearest(own, schema.names)} (columns: {', '.join(schema.names)})"
            )
        elif column.required and column.name not in parameters:
            instead = f", or set parameters.{column.name}" if column.parameter else ""
            raise ConfigError(
                f"{name} reads a column {column.name!r}, which the input has not; "
                f"columns: {', '.join(schema.names)}. "
                f"Name one with --column {column.name}=COLUMN (input.columns){instead}"
            )
    return found


def kept_columns(keep: Literal["all"] | list[str], schema: pa.Schema) -> list[str]:
    if keep == "all":
        return list(schema.names)
    for name in keep:
        if name not in schema.names:
            raise ConfigError(
                f"output.keep names {name!r}, which the input has not; "
                f"{nearest(name, schema.names)} (columns: {', '.join(schema.names)})"
            )
    return [name for name in schema.names if name in keep]


def beside(rows: pa.Table, added: pa.Table) -> pa.Table:
    """Input columns, then added ones; an input column of an added one's name is `input_NAME`."""
    taken = set(added.column_names)
    names = []
    for name in rows.column_names:
        while name in taken:
            name = f"input_{name}"
        taken.add(name)
        names.append(name)
    joined = rows.rename_columns(names)
    for field, column in zip(added.schema, added.columns, strict=True):
        joined = joined.append_column(field, column)
    return joined


def _check_type(task: str, column: Column, field: pa.Field) -> None:
    kind = field.type
    fits = {
        "text": _is_text(kind),
        "labels": _is_text(kind) or (_is_list(kind) and _is_text(kind.value_type)),
        "flag": pa.types.is_boolean(kind),
    }[column.kind]
    if not fits:
        wanted = {"text": "text", "labels": "a list of texts", "flag": "true or false"}[column.kind]
        raise ConfigError(
            f"column {field.name!r} is {kind}, but {task} reads {wanted} as {column.name!r}"
        )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
