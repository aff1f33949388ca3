"""The columns of JSON rows, by a sample of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa

# Marks a column that is kept as JSON text: its values have no type in common.
JSON_TEXT = {b"pipemill": b"json"}
# What pa.array raises for values of different types, lone surrogates, and huge integers.
_UNTYPED = (pa.ArrowException, UnicodeError, OverflowError)


def infer_schema(rows: list[dict[str, Any]]) -> pa.Schema:
    """As far as these rows tell: a column may be null in all of them."""
    names = dict.fromkeys(name for row in rows for name in row if _is_text(name))
    return pa.schema([_field(name, [row.get(name) for row in rows]) for name in names])


def unified(schemas: list[pa.Schema]) -> pa.Schema:
    """Of several samples. Raises ArrowTypeError where a column has types that can't be one."""
    texts = {field.name for schema in schemas for field in schema if field.metadata == JSON_TEXT}
    for i, schema in enumerate(schemas):
        for place in [schema.get_field_index(name) for name in texts & set(schema.names)]:
            schemas[i] = schemas[i].set(place, _json_text(schema.field(place).name))
    whole = pa.unify_schemas(schemas, promote_options="permissive")
    return pa.schema([_final(field) for field in whole])


def _final(field: pa.Field) -> pa.Field:
    if field.metadata == JSON_TEXT:
        return field
    kind = _settled(field.type)
    return _json_text(field.name) if kind is None else pa.field(field.name, kind)


def _json_text(name: str) -> pa.Field:
    return pa.field(name, pa.string(), metadata=JSON_TEXT)


def _is_text(name: str) -> bool:
    """Whether a column can have this name: one with a lone surrogate can be written nowhere."""
    try:
        return bool(name.encode()) or not name
    except UnicodeEncodeError:
        return False


def _field(name: str, values: list[Any]) -> pa.Field:
    """A column by its sampled values; those that do not fit will be dead letters when read."""
    try:
        kind = pa.array(values).type
    except _UNTYPED:
        # Most of them decide, unless they differ inside: then they are kept as JSON text.
        kinds = Counter(type(value) for value in values if value is not None)
        most = kinds.most_common(1)[0][0]
        if most is str:
            return pa.field(name, pa.string())
        try:
            kind = pa.array([value for value in values if type(value) is most]).type
        except _UNTYPED:
            return _json_text(name)
    return pa.field(name, kind) if _settled(kind) else _json_text(name)


def _settled(kind: pa.DataType) -> pa.DataType | None:
    """The type with text for what was always null; None if a struct in it has no fields."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        inner = _settled(kind.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_struct(kind):
        inners = [_settled(field.type) for field in kind]
        if not inners or None in inners:
            return None
        return pa.struct([(f.name, inner) for f, inner in zip(kind, inners, strict=True)])
    return kind


def as_text(row: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """The row with the values of these columns as JSON."""
    for name in columns:
        if row.get(name) is not None:
            row[name] = json.dumps(row[name], ensure_ascii=False)
    return row
