"""The features of `datasets` (ClassLabel, Image, …) as it writes them into a schema's notes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_KEY = b"huggingface"
# As releases before 4 wrote lists; those can't read how later ones do.
_OLD = '"_type": "Sequence"'

Features = dict[str, Any]


def features_of(notes: Mapping[bytes, bytes] | None) -> Features:
    """Return the features that a schema's notes tell, by column."""
    try:
        found = json.loads((notes or {})[_KEY])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def common_features(schemas: Sequence[pa.Schema]) -> Features:
    """Return the features that are the same in all schemas that have their column."""
    names: dict[bytes | None, set[str]] = defaultdict(set)
    for schema in schemas:
        names[(schema.metadata or {}).get(_KEY)] |= set(schema.names)
    if set(names) == {None}:
        return {}
    told = {notes: features_of({_KEY: notes}) if notes else {} for notes in names}
    common: Features = {}
    for name in dict.fromkeys(name for features in told.values() for name in features):
        found = [told[notes].get(name) for notes, columns in names.items() if name in columns]
        if found and all(one is not None and one == found[0] for one in found):
            common[name] = found[0]
    return common


def with_features(schema: pa.Schema, features: Features) -> pa.Schema:
    """Return the schema with notes that tell these features."""
    return schema.with_metadata(_notes(features)) if features else schema


def describe(schema: pa.Schema, known: Features) -> dict[bytes, bytes]:
    """Return the notes for a schema of which some columns' features are known.

    The others have those that `datasets` would give them by their type.
    """
    old = _OLD in json.dumps(known)
    features: Features = {}
    for field in schema:
        found = known.get(field.name) or (None if old else _feature(field.type))
        if found is not None:
            features[field.name] = found
    return _notes(features)


def _notes(features: Features) -> dict[bytes, bytes]:
    return {_KEY: json.dumps({"info": {"features": features}}).encode()}


def _feature(kind: pa.DataType) -> Any:
    """None for a type that has no feature."""
    if pa.types.is_dictionary(kind):
        return _feature(kind.value_type)
    if pa.types.is_struct(kind):
        inner = {field.name: _feature(field.type) for field in kind}
        return None if None in inner.values() or not inner else inner
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        feature = _feature(kind.value_type)
        if feature is None:
            return None
        if pa.types.is_large_list(kind):
            return {"feature": feature, "_type": "LargeList"}
        length = {"length": kind.list_size} if pa.types.is_fixed_size_list(kind) else {}
        return {"feature": feature, **length, "_type": "List"}
    dtype = _dtype(kind)
    return None if dtype is None else {"dtype": dtype, "_type": "Value"}


def _dtype(kind: pa.DataType) -> str | None:
    if pa.types.is_floating(kind):
        return f"float{kind.bit_width}"
    if pa.types.is_time(kind):
        return f"time{kind.bit_width}[{kind.unit}]"
    if pa.types.is_date(kind):
        return f"date{kind.bit_width}"
    named = (
        pa.types.is_boolean, pa.types.is_integer, pa.types.is_string, pa.types.is_large_string,
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_timestamp, pa.types.is_duration,
        pa.types.is_decimal128, pa.types.is_decimal256, pa.types.is_null,
    )  # fmt: skip
    return str(kind) if any(check(kind) for check in named) else None
