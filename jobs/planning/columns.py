"""Decide which of the input's columns a task reads, and which are read and kept at all."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.columns import describe, matches
from pipemill.actors.sources.jsonl import holds_rest
from pipemill.actors.sources.schemas.media_columns import (
    MEDIA_KINDS,
    find_media_columns,
    holds_files,
    members_of,
)
from pipemill.actors.sources.schemas.unify import conflict_of
from pipemill.actors.storage.partitions import is_partition_field
from pipemill.actors.task import Column
from pipemill.pipelines.task_spec import TaskSpec

from pipemill.errors import ConfigError, did_you_mean


def resolve_columns(
    name: str,
    inputs: tuple[Column, ...],
    mapping: Mapping[str, str | None],
    parameters: Mapping[str, Any],
    schema: pa.Schema,
) -> dict[str, str]:
    """Return the input's column for each of the task's. A column of the same name needs no mapping.

    A column that only has the name of a parameter is read if its type is right, and left alone if
    it is not (`notes_on_columns`).

    Args:
        name: the task's.
        inputs: the task's columns.
        mapping: the task's names to the input's, as the job has it; None leaves a column out.
        parameters: those of the job.
        schema: of the input.

    Raises:
        ConfigError: a column that is missing, unknown or of a wrong type.
    """
    for wrong in set(mapping) - {column.name for column in inputs}:
        hint = did_you_mean(wrong, [column.name for column in inputs])
        raise ConfigError(f"{name} reads no column {wrong!r} (input.columns); {hint}")
    found = {}
    for column in inputs:
        mapped = mapping.get(column.name)
        if mapped is not None and column.name in parameters:
            raise ConfigError(
                f"{column.name!r} is given twice: in parameters, and as a column in input.columns"
            )
        own = mapped or _own_name(name, column, inputs, schema)
        left_out = column.name in mapping and mapped is None
        if own in schema.names and column.name not in parameters and not left_out:
            field = schema.field(own)
            if not column.required and pa.types.is_null(field.type):
                continue  # it says nothing in any row
            if mapped is None and _is_namesake(column, field):
                continue
            _check_type(name, column, field)
            found[column.name] = own
        elif mapped is not None:
            raise ConfigError(
                f"no column {own!r} in the input (input.columns.{column.name}); "
                f"{did_you_mean(own, schema.names)} (columns: {', '.join(schema.names)})"
            )
        elif column.required and column.name not in parameters:
            instead = f", or set parameters.{column.name}" if column.parameter else ""
            why = "input.columns leaves out" if left_out else "the input does not have"
            raise ConfigError(
                f"{name} reads a column {column.name!r}, which {why}; "
                f"columns: {', '.join(schema.names)}. "
                f"Name one with --column {column.name}=COLUMN (input.columns){instead}"
            )
    return found


def source_names(inputs: Iterable[Column], mapping: Mapping[str, str | None]) -> dict[str, str]:
    """Return the input's column for each of a task's, without those that are left out."""
    names = {column.name: mapping.get(column.name, column.name) for column in inputs}
    return {name: own for name, own in names.items() if own is not None}


def notes_on_columns(
    name: str,
    inputs: tuple[Column, ...],
    mapping: Mapping[str, str | None],
    parameters: Mapping[str, Any],
    schema: pa.Schema,
) -> tuple[str, ...]:
    """Return notes on columns that have the name of a parameter, and that the job does not map."""
    notes = []
    for column in inputs:
        if not column.parameter or column.required or column.name not in schema.names:
            continue
        if column.name in mapping or column.name in parameters:
            continue
        field = schema.field(column.name)
        if _is_namesake(column, field):
            notes.append(
                f"column {field.name!r} is {field.type} and is not read: {name} reads "
                f"{describe(column.kind)} as {column.name!r}"
            )
        elif not pa.types.is_null(field.type):
            notes.append(
                f"column {field.name!r} is read as the parameter {column.name} of each row; if it "
                f"means something else: --column {column.name}= "
                f"(input.columns: {{{column.name}: null}})"
            )
    return tuple(notes)


def with_needed(
    schema: pa.Schema,
    spec: TaskSpec,
    inputs: tuple[Column, ...],
    mapping: Mapping[str, str | None],
    parameters: Mapping[str, Any],
) -> pa.Schema:
    """Add the columns that a task needs to those of files without rows, which don't show them."""
    needed = {column.name for column in inputs if column.required or column.name in mapping}
    if spec.one_of and not needed & set(spec.one_of):
        needed.add(spec.one_of[0])
    for column in inputs:
        name = mapping.get(column.name, column.name)
        if name is None:
            continue
        if column.name in needed and column.name not in parameters and name not in schema.names:
            type = next(type for type in _USUAL_TYPES if matches(column.kind, type))
            schema = schema.append(pa.field(name, type))
    return schema


_USUAL_TYPES = (
    pa.string(),
    pa.list_(pa.string()),
    pa.float64(),
    pa.bool_(),
    pa.list_(pa.list_(pa.int64())),
)


def check_one_of(spec: TaskSpec, columns: Mapping[str, str]) -> None:
    """Raise ConfigError if a task that reads one of several columns has none of them."""
    names = spec.one_of
    if names and not set(names) & set(columns):
        raise ConfigError(
            f"{spec.name} reads one of the columns {', '.join(names)}, and the input has none of "
            f"them: name one with --column {names[0]}=COLUMN (input.columns)"
        )


def kept_columns(keep: Literal["all"] | list[str], schema: pa.Schema) -> list[str]:
    """Return the names of the input columns that the output keeps.

    "all" leaves out those that hold whole files: they would copy the dataset.
    """
    if keep == "all":
        return [f.name for f in schema if not holds_files(f) and not members_of(f)]
    for name in keep:
        if name not in schema.names:
            raise ConfigError(
                f"output.keep names {name!r}, which the input does not have; "
                f"{did_you_mean(name, schema.names)} (columns: {', '.join(schema.names)})"
            )
    # What the kept columns can't hold is kept with them.
    return [field.name for field in schema if field.name in keep or (keep and holds_rest(field))]


def read_columns(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """Return the columns of these names, and at least one that lies in the files."""
    found = [field for field in schema if field.name in names]
    if all(map(is_partition_field, found)):  # how many rows there are only the files tell
        inside = [f for f in schema if not is_partition_field(f) and conflict_of(f) is None]
        found = [*inside[:1], *found]
    return pa.schema(found)


def check_conflicts(schema: pa.Schema, read: Iterable[str], keep: Iterable[str]) -> None:
    """Raise ConfigError for a column that is needed and whose types in the files can't be one."""
    for field in schema:
        why = conflict_of(field)
        if why is not None and field.name in read:
            raise ConfigError(why)
        if why is not None and field.name in keep:
            raise ConfigError(f"{why}, or name the columns to keep without it (output.keep)")


def check_writable(schema: pa.Schema) -> None:
    """Raise ConfigError for a column that Parquet has no type for."""
    for field in schema:
        try:
            pq.write_table(pa.schema([field]).empty_table(), io.BytesIO())
        except pa.ArrowException:
            raise ConfigError(
                f"column {field.name!r} is {field.type}, which Parquet can't hold: name the "
                "columns to keep without it (output.keep)"
            ) from None


def _check_type(task: str, column: Column, field: pa.Field) -> None:
    if not matches(column.kind, field.type):
        plain = column.kind == "text" and not pa.types.is_nested(field.type)
        hint = f"; input.schema: {{{field.name}: string}} reads it as text" if plain else ""
        raise ConfigError(
            f"column {field.name!r} is {field.type}, but {task} reads {describe(column.kind)} "
            f"as {column.name!r}{hint}{_way_out(column)}"
        )


def _way_out(column: Column) -> str:
    if column.required and not column.parameter:
        return ""
    instead = f"; or set parameters.{column.name}" if column.parameter else ""
    if column.required:
        return instead
    left = f"input.columns: {{{column.name}: null}}"
    return f"; for one that means something else, --column {column.name}= ({left}){instead}"


def _is_namesake(column: Column, field: pa.Field) -> bool:
    """Tell whether a column has only the name of a parameter, and another type."""
    return column.parameter and not column.required and not matches(column.kind, field.type)


def _own_name(name: str, column: Column, inputs: tuple[Column, ...], schema: pa.Schema) -> str:
    """Return the input's column for one that is not mapped: of the same name, or of its kind."""
    first = next(other for other in inputs if other.kind == column.kind)
    if column.name in schema.names or column.kind not in MEDIA_KINDS or column != first:
        return column.name
    found = find_media_columns(column.kind, schema)
    if len(found) > 1 and column.required:
        raise ConfigError(
            f"{name} reads one {column.kind}, and the input has several ({', '.join(found)}): "
            f"name one with --column {column.name}=COLUMN (input.columns)"
        )
    return found[0] if found else column.name
