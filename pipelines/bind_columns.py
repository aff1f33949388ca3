"""Bind a task to the columns of rows that only a worker sees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
from pipemill.actors.columns import matches
from pipemill.actors.operator import BoundLoad
from pipemill.actors.ray_columns import is_pickled, is_tensor
from pipemill.actors.task import MEDIA

from .loading.task_loader import LoadTask
from .task_columns import (
    USUAL_TYPES,
    check_one_of,
    list_inputs,
    map_source_names,
    resolve_columns,
    with_inputs,
)


def bind_columns(load: LoadTask, mapping: Mapping[str, str | None], schema: pa.Schema) -> BoundLoad:
    """Return a task with the columns of the rows that it reads.

    Args:
        load: the task, without columns.
        mapping: the user's columns by those of the task; None leaves a column out.
        schema: of the rows. A column of which all values are null has any type, and so have
            objects that Ray pickled.

    Raises:
        ConfigError: for a column that is missing, unknown or of a wrong type.
    """
    parameters = json.loads(load.parameters)
    named = tuple(name for name, own in mapping.items() if own is not None)
    spec = with_inputs(replace(load, columns=tuple((name, name) for name in named)).spec(), schema)
    inputs = list_inputs(spec, parameters)
    for name, own in map_source_names(inputs, mapping).items():
        kind = next(column.kind for column in inputs if column.name == name)
        if own in schema.names:
            place = schema.get_field_index(own)
            schema = schema.set(place, _set_known_type(schema.field(own), kind))
    columns = resolve_columns(spec.name, inputs, mapping, parameters, schema)
    check_one_of(spec, columns, parameters)
    return BoundLoad(
        load=replace(load, columns=tuple(columns.items())),
        columns=pa.schema([schema.field(own) for own in dict.fromkeys(columns.values())]),
    )


def _set_known_type(field: pa.Field, kind: str) -> pa.Field:
    """Return a column of nulls, objects or tensors of images with a type that the task takes."""
    if pa.types.is_null(field.type) or is_pickled(field.type):
        usual = (type for type in USUAL_TYPES if matches(kind, type))
        return field.with_type(next(usual, field.type))
    if kind in MEDIA and is_tensor(field.type):
        return field.with_type(pa.binary())
    return field
