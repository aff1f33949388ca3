"""Decide which of the input's columns are read, and which the output keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

import pyarrow as pa
from pipemill.actors.columns import describe
from pipemill.actors.sources.jsonl import holds_rest
from pipemill.actors.sources.schemas.hf_features import read_features
from pipemill.actors.sources.schemas.media_columns import holds_files, list_members
from pipemill.actors.sources.schemas.unify import find_conflict
from pipemill.actors.storage.partitions import is_partition_field
from pipemill.actors.task import Column
from pipemill.pipelines.task_columns import is_namesake

from pipemill.errors import ConfigError, name_columns


def note_columns(
    name: str,
    inputs: tuple[Column, ...],
    mapping: Mapping[str, str | None],
    parameters: Mapping[str, Any],
    schema: pa.Schema,
) -> tuple[str, ...]:
    """Return notes on columns that have the name of a parameter, and that the job does not map."""
    notes = []
    for column in inputs:
        if not column.parameter or column.name not in schema.names or column.name in mapping:
            continue
        field = schema.field(column.name)
        unfit, given = is_namesake(column, field), column.name in parameters
        if pa.types.is_null(field.type) or (given and unfit) or (column.required and not given):
            continue
        if given:
            notes.append(
                f"column {field.name!r} is not read: parameters.{column.name} is that of all rows"
            )
        elif unfit:
            notes.append(
                f"column {field.name!r} is {field.type} and is not read: {name} reads "
                f"{describe(column.kind)} as {column.name!r}"
            )
        else:
            notes.append(
                f"column {field.name!r} is read as the parameter {column.name} of each row; if it "
                f"means something else: --column {column.name}= "
                f"(input.columns: {{{column.name}: null}})"
            )
    return tuple(notes)


def list_kept_columns(keep: Literal["all"] | list[str], schema: pa.Schema) -> list[str]:
    """Return the names of the input columns that the output keeps.

    "all" leaves out those that hold whole files: they would copy the dataset.
    """
    if keep == "all":
        return [f.name for f in schema if not holds_files(f) and not list_members(f)]
    for name in keep:
        if name not in schema.names:
            raise ConfigError(
                f"output.keep names {name!r}, which the input does not have; "
                f"{name_columns(name, schema.names)}"
            )
    # What the kept columns can't hold is kept with them.
    return [field.name for field in schema if field.name in keep or (keep and holds_rest(field))]


def read_columns(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """Return the columns of these names, and at least one that lies in the files."""
    found = [field for field in schema if field.name in names]
    if all(map(is_partition_field, found)):  # how many rows there are only the files tell
        inside = [f for f in schema if not is_partition_field(f) and find_conflict(f) is None]
        found = [*inside[:1], *found]
    return pa.schema(found)


def check_conflicts(schema: pa.Schema, read: Iterable[str], keep: Iterable[str]) -> None:
    """Raise ConfigError for a column that is needed and whose types in the files can't be one."""
    for field in schema:
        why = find_conflict(field)
        if why is not None and field.name in read:
            raise ConfigError(why)
        if why is not None and field.name in keep:
            raise ConfigError(f"{why}, or name the columns to keep without it (output.keep)")


def check_features(columns: Mapping[str, str], schema: pa.Schema) -> None:
    """Raise ConfigError for values that `datasets` makes something else of when they are read.

    These are images turned into another mode, such as grey, and JSON texts inside of messages.

    columns: the input's column for each of the task's.
    """
    features = read_features(schema.metadata)
    for name in columns.values():
        feature = features.get(name)
        mode = feature.get("mode") if isinstance(feature, Mapping) else None
        # A task reads RGB in any case.
        if mode not in (None, "RGB", "RGBA"):
            raise ConfigError(
                f"column {name!r} has the feature Image(mode={mode!r}) of datasets, which turns "
                "images into that mode each time they are read: apply it once with dataset.map(…), "
                f"or remove it with dataset.cast_column({name!r}, datasets.Image())"
            )
    chat = columns.get("messages")
    if chat is not None and _holds_json(features.get(chat), inside=False):
        raise ConfigError(
            f"column {chat!r} has the feature Json() of datasets inside of its messages, which "
            "only datasets reads as values: make all of it JSON with dataset.map(lambda row: "
            f"{{{chat!r}: row[{chat!r}]}}, features=datasets.Features({{**dataset.features, "
            f"{chat!r}: datasets.Json()}}))"
        )


def _holds_json(feature: Any, inside: bool) -> bool:
    """Tell whether a struct in a feature has values that are stored as JSON and read from it.

    inside: whether the feature itself is in a struct.
    """
    if isinstance(feature, list):
        return any(_holds_json(inner, inside) for inner in feature)
    if not isinstance(feature, Mapping):
        return False
    kind = feature.get("_type")
    if isinstance(kind, str):
        if kind == "Json":
            return inside and bool(feature.get("decode", True))
        return _holds_json(feature.get("feature"), inside)
    return any(_holds_json(inner, inside=True) for inner in feature.values())
