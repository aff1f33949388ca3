"""Find the columns of the data that a task reads: those of its names, or those that a user maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pipemill.actors.columns import describe, matches
from pipemill.actors.sources.schemas.json_schema import JSON_TEXT
from pipemill.actors.sources.schemas.media_columns import MEDIA_KINDS, find_media_columns
from pipemill.actors.task import Column

from pipemill.errors import ConfigError, did_you_mean, list_columns, name_columns

from .task_spec import TaskSpec
from .user_pipeline import user_pipeline_task

# A column that an unknown pipeline is given, where the user names none.
USUAL = ("inputs", "text", "image", "audio", "video", "messages")


def list_inputs(spec: TaskSpec, parameters: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return the task's columns: lists of words if the parameters say that texts are split."""
    if not parameters.get("is_split_into_words") or spec.any_parameter:
        return spec.inputs
    return tuple(replace(c, kind="words") if c.kind == "text" else c for c in spec.inputs)


def resolve_columns(
    name: str,
    inputs: tuple[Column, ...],
    mapping: Mapping[str, str | None],
    parameters: Mapping[str, Any],
    schema: pa.Schema,
) -> dict[str, str]:
    """Return the input's column for each of the task's. A column of the same name needs no mapping.

    A column that only has the name of a parameter is read if its type is right, and left alone if
    it is not (`note_columns`).

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
        own = _find_own_name(name, column, inputs, schema) if mapped is None else mapped
        left_out = column.name in mapping and mapped is None
        if own in schema.names and column.name not in parameters and not left_out:
            field = schema.field(own)
            if not column.required and pa.types.is_null(field.type):
                continue  # it says nothing in any row
            if mapped is None and is_namesake(column, field):
                continue
            _check_type(name, column, field)
            found[column.name] = own
        elif mapped is not None:
            raise ConfigError(
                f"no column {own!r} in the input (input.columns.{column.name}); "
                f"{_describe_field(own, schema) or name_columns(own, schema.names)}"
                f"{_describe_nested_rows(own, schema)}"
            )
        elif column.required and column.name not in parameters:
            why = "input.columns leaves out" if left_out else "the input does not have"
            raise _explain_missing(name, column, why, own, schema)
    return found


def _explain_missing(
    task: str, column: Column, why: str, own: str, schema: pa.Schema
) -> ConfigError:
    """Return the error of a required column that is not there. own: its name in the input."""
    instead = f", or set parameters.{column.name}" if column.parameter else ""
    return ConfigError(
        f"{task} reads a column {column.name!r}, which {why}; "
        f"{list_columns(schema.names)}. {_describe_other_delimiter(schema)}Name one "
        f"with --column {column.name}=COLUMN (input.columns){instead}"
        f"{_describe_nested_rows(own, schema)}"
    )


def _describe_field(name: str, schema: pa.Schema) -> str:
    """Return what is said of a name that means a field inside a column, such as `a.b`."""
    column, _, field = name.partition(".")
    if column not in schema.names or not pa.types.is_struct(schema.field(column).type):
        return ""
    return f"fields of the struct {column!r} can't be read: make {field!r} a column"


def _describe_other_delimiter(schema: pa.Schema) -> str:
    """Return what is said of CSV whose fields are not divided as pipemill reads them."""
    found = [mark for mark in ";|\t" if len(schema.names) == 1 and mark in schema.names[0]]
    if not found:
        return ""
    return f"If that is CSV divided by {found[0]!r}: set input.delimiter to {found[0]!r}. "


def _describe_nested_rows(name: str, schema: pa.Schema) -> str:
    """Return what is said of rows inside one large object, as in `{"data": [{…}, …]}`."""
    first = schema.field("0").type if "0" in schema.names else None
    if first is not None and pa.types.is_struct(first) and name in {one.name for one in first}:
        return f". {_FOR_PANDAS}"
    lists = list(_find_lists(schema, ""))
    found = [path for path, fields in lists if name in fields]
    outer = [(path, fields) for path, fields in lists if path.count("[]") == 1]
    # A chat is no rows, and several images of a row aren't, either.
    if not found and len(outer) == 1 and not {"role", "bytes"} & set(outer[0][1]):
        found = [outer[0][0]]
    if not found:
        return ""
    return (
        f". If the objects in {' and '.join(found)} are the rows, write them one a line: "
        f"jq -c '{', '.join(found)}' FILE > rows.jsonl"
    )


def _find_lists(fields: Iterable[pa.Field], path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield where lists of objects are, as jq calls it, and the names in the objects."""
    for field in fields:
        kind, name = field.type, field.name
        inner = f"{path}.{name}" if name.isidentifier() else f'{path}."{name}"'
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind, inner = kind.value_type, f"{inner}[]"
        if pa.types.is_struct(kind):
            if inner.endswith("[]"):
                yield inner, [one.name for one in kind]
            yield from _find_lists(kind, inner)


def map_source_names(inputs: Iterable[Column], mapping: Mapping[str, str | None]) -> dict[str, str]:
    """Return the input's column for each of a task's, without those that are left out."""
    names = {column.name: mapping.get(column.name, column.name) for column in inputs}
    return {name: own for name, own in names.items() if own is not None}


def check_one_of(spec: TaskSpec, columns: Mapping[str, str], parameters: Mapping[str, Any]) -> None:
    """Raise ConfigError if a task that reads one of several columns has none of them.

    parameters: those of the job, which may take the place of a column.
    """
    names = spec.one_of
    if not names or set(names) & {*columns, *parameters}:
        return
    shared = [name for name in names if name in spec.parameters]
    instead = "".join(f", or set parameters.{name} for all rows" for name in shared)
    raise ConfigError(
        f"{spec.name} reads one of the columns {', '.join(names)}, and the input has none of "
        f"them: name one with --column {names[0]}=COLUMN (input.columns){instead}"
    )


def with_inputs(spec: TaskSpec, schema: pa.Schema) -> TaskSpec:
    """Return the task with the column that an unknown pipeline is given, if none was named."""
    if spec.inputs:
        return spec
    usual = [name for name in USUAL if name in schema.names]
    names = usual[:1] or (schema.names if len(schema.names) == 1 else [])
    if not names:
        raise ConfigError(
            f"which column goes into the pipeline of {spec.name}? Name it with --column "
            f"NAME=COLUMN (input.columns); {list_columns(schema.names)}"
        )
    return user_pipeline_task(spec.name, tuple(names))


def with_needed(
    schema: pa.Schema,
    spec: TaskSpec,
    inputs: tuple[Column, ...],
    mapping: Mapping[str, str | None],
    parameters: Mapping[str, Any],
    adds: bool,
) -> pa.Schema:
    """Give columns of an input without rows, which have no types, those that a task needs.

    adds: whether only rows show which columns there are, so that all that the task needs are there.
    """
    needed = {column.name for column in inputs if column.required or column.name in mapping}
    if spec.one_of and not needed & set(spec.one_of):
        needed.add(spec.one_of[0])
    for column in inputs:
        name = mapping.get(column.name, column.name)
        if name is None or column.name not in needed or column.name in parameters:
            continue
        place = schema.get_field_index(name)
        field = pa.field(name, next(type for type in USUAL_TYPES if matches(column.kind, type)))
        if place < 0 and adds:
            schema = schema.append(field)
        elif place >= 0 and _is_untyped(column, schema.field(place)):
            schema = schema.set(place, field)
    return schema


def _is_untyped(column: Column, field: pa.Field) -> bool:
    """Tell whether a column without rows has a type for lack of one: pandas takes float64."""
    lacks = pa.types.is_null(field.type) or pa.types.is_float64(field.type)
    return lacks and not matches(column.kind, field.type)


_FOR_PANDAS = "pandas writes a row a line with to_json(FILE, orient='records', lines=True)"
_LONGEST_TYPE = 200  # characters in a message
USUAL_TYPES = (
    pa.string(),
    pa.list_(pa.string()),
    pa.float64(),
    pa.bool_(),
    pa.list_(pa.list_(pa.int64())),
)


def _check_type(task: str, column: Column, field: pa.Field) -> None:
    if _fits(column, field):
        return
    is_json = field.metadata == JSON_TEXT
    held = "JSON of no common type" if is_json else _shorten(field.type)
    if is_json or _is_written_by_pandas(field.type):
        hint = f"; {_FOR_PANDAS}"
    else:
        plain = column.kind == "text" and not pa.types.is_nested(field.type)
        hint = f"; input.schema: {{{field.name}: string}} reads it as text" if plain else ""
    raise ConfigError(
        f"column {field.name!r} is {held}, but {task} reads {describe(column.kind)} "
        f"as {column.name!r}{hint}{_advise_way_out(column)}"
    )


def _fits(column: Column, field: pa.Field) -> bool:
    # Of what is read as text and is JSON, no value that was seen is a text.
    is_text = column.kind != "text" or field.metadata != JSON_TEXT
    return is_text and matches(column.kind, field.type)


def _is_written_by_pandas(type: pa.DataType) -> bool:
    """Tell whether a column is an object of rows by number, as `DataFrame.to_json` writes it."""
    return pa.types.is_struct(type) and {"0", str(type.num_fields - 1)} <= {f.name for f in type}


def _shorten(type: pa.DataType) -> str:
    text = str(type)
    return text if len(text) <= _LONGEST_TYPE else f"{text[:_LONGEST_TYPE]}…"


def _advise_way_out(column: Column) -> str:
    if column.required and not column.parameter:
        return ""
    instead = f"; or set parameters.{column.name}" if column.parameter else ""
    if column.required:
        return instead
    left = f"input.columns: {{{column.name}: null}}"
    return f"; for one that means something else, --column {column.name}= ({left}){instead}"


def is_namesake(column: Column, field: pa.Field) -> bool:
    """Tell whether a column has only the name of a parameter, and another type."""
    return column.parameter and not column.required and not _fits(column, field)


def _find_own_name(name: str, column: Column, inputs: tuple[Column, ...], schema: pa.Schema) -> str:
    """Return the input's column for one that is not mapped: of the same name, or of its kind."""
    first = next(other for other in inputs if other.kind == column.kind)
    if column.name in schema.names or column.kind not in MEDIA_KINDS or column != first:
        return column.name
    found = find_media_columns(column.kind, schema)
    if len(found) > 1 and column.required:
        raise ConfigError(
            f"{name} reads one {column.kind}, and the input has several ({', '.join(found)}): "
            f"name one with --column {column.name}=COLUMN (input.columns), or each sample's first "
            f"with --column '{column.name}={';'.join(found)}'"
        )
    return found[0] if found else column.name
