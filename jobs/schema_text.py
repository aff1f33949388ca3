"""Arrow types written as text, such as list<struct<label: string, score: float>>."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from .errors import ConfigError

_EXAMPLES = (
    "string, bool, int64, float32, binary, list<string>, struct<label: string, score: float>"
)


def schema_from(columns: Mapping[str, str]) -> pa.Schema:
    """Raises ConfigError for a type that is none."""
    return pa.schema([(name, _parsed(text, name)) for name, text in columns.items()])


def _parsed(text: str, name: str) -> pa.DataType:
    head, bracket, rest = text.strip().partition("<")
    if not bracket:
        try:
            return pa.type_for_alias(head)
        except ValueError:
            raise _wrong(text, name) from None
    if not rest.endswith(">"):
        raise _wrong(text, name)
    inner = rest[:-1]
    if head == "list":
        return pa.list_(_parsed(inner, name))
    if head == "struct":
        fields = [field.partition(":") for field in _split(inner)]
        if not all(colon for _, colon, _ in fields):
            raise _wrong(text, name)
        return pa.struct([(field.strip(), _parsed(kind, name)) for field, _, kind in fields])
    raise _wrong(text, name)


def _split(text: str) -> list[str]:
    """At commas that are in no brackets."""
    pieces, depth = [""], 0
    for character in text:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _wrong(text: str, name: str) -> ConfigError:
    return ConfigError(f"output.schema.{name}: {text!r} is no type; there are {_EXAMPLES}, …")
