"""Read and write the features of `datasets` (ClassLabel, Image, …) in a schema's metadata."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ...columns import is_list

_KEY = b"huggingface"
# Releases before 4 write lists like this, and can't read how later ones write them.
_OLD = '"_type": "Sequence"'

Features = dict[str, Any]


def read_features(metadata: Mapping[bytes, bytes] | None) -> Features:
    """Return the features in a schema's metadata, by column."""
    try:
        features = json.loads((metadata or {})[_KEY])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def find_common_features(schemas: Sequence[pa.Schema]) -> Features:
    """Return the features that are the same in all schemas that have their column."""
    names: dict[bytes | None, set[str]] = defaultdict(set)
    for schema in schemas:
        names[(schema.metadata or {}).get(_KEY)] |= set(schema.names)
    if set(names) == {None}:
        return {}
    parsed = {text: read_features({_KEY: text}) if text else {} for text in names}
    common: Features = {}
    for name in dict.fromkeys(name for features in parsed.values() for name in features):
        same = [parsed[text].get(name) for text, columns in names.items() if name in columns]
        if same and all(feature is not None and feature == same[0] for feature in same):
            common[name] = same[0]
    return common


def add_features(schema: pa.Schema, features: Features) -> pa.Schema:
    """Return the schema with these features in its metadata."""
    return schema.with_metadata(_to_metadata(features)) if features else schema


def keep_features(schema: pa.Schema) -> pa.Schema:
    """Return a schema with no other metadata than its features."""
    text = (schema.metadata or {}).get(_KEY)
    return schema.with_metadata(None if text is None else {_KEY: text})


def make_metadata(schema: pa.Schema, known: Features) -> dict[bytes, bytes]:
    """Return the metadata of a schema.

    known: the features of some columns. The others get those that `datasets` gives their type.
    """
    old = _OLD in json.dumps(known)
    features: Features = {}
    for field in schema:
        feature = known.get(field.name) or (None if old else _infer_feature(field.type))
        if feature is not None:
            features[field.name] = feature
    return _to_metadata(features)


def _to_metadata(features: Features) -> dict[bytes, bytes]:
    return {_KEY: json.dumps({"info": {"features": features}}).encode()}


def _infer_feature(kind: pa.DataType) -> Any:
    """Return the feature of a type, or None."""
    if pa.types.is_dictionary(kind):
        return _infer_feature(kind.value_type)
    if pa.types.is_struct(kind):
        inner = {field.name: _infer_feature(field.type) for field in kind}
        return None if None in inner.values() or not inner else inner
    if is_list(kind):
        feature = _infer_feature(kind.value_type)
        if feature is None:
            return None
        if pa.types.is_large_list(kind):
            return {"feature": feature, "_type": "LargeList"}
        length = {"length": kind.list_size} if pa.types.is_fixed_size_list(kind) else {}
        return {"feature": feature, **length, "_type": "List"}
    dtype = _infer_dtype(kind)
    return None if dtype is None else {"dtype": dtype, "_type": "Value"}


def _infer_dtype(kind: pa.DataType) -> str | None:
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
