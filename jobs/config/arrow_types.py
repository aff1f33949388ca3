"""Arrow types written as text, such as list<struct<label: string, score: float>>."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from pipemill.errors import ConfigError

_EXAMPLES = (
    "string, bool, int64, float32, binary, list<string>, struct<label: string, score: float>"
)


def schema_from(columns: Mapping[str, str], key: str = "output.schema") -> pa.Schema:
    """Raises ConfigError for an unknown type. key: where the config says them."""
    if not columns:
        raise ConfigError(f"{key} names no column")
    return pa.schema([(name, _parsed(text, f"{key}.{name}")) for name, text in columns.items()])


def _parsed(text: str, name: str) -> pa.DataType:
    """name: of the key that says it."""
    head, bracket, rest = text.strip().partition("<")
    inner, closed, size = rest.rpartition(">")
    if not bracket:
        try:
            return pa.type_for_alias(head)
        except ValueError:
            raise _wrong(text, name) from None
    if head == "struct" and closed and not size:
        fields = [field.partition(":") for field in _split(inner)]
        names = [field.strip() for field, _, _ in fields]
        if all(names) and len(set(names)) == len(names):
            return pa.struct([(field.strip(), _parsed(kind, name)) for field, _, kind in fields])
    if head == "list" and closed and not size:
        return pa.list_(_parsed(_item(inner), name))
    if head == "fixed_size_list" and re.fullmatch(r"\[\d+\]", size):
        return pa.list_(_parsed(_item(inner), name), int(size[1:-1]))
    raise _wrong(text, name)


def _item(text: str) -> str:
    """Without the name that Arrow shows before it: list<item: string>."""
    return re.sub(r"^\s*(item|element)\s*:", "", text)


def _split(text: str) -> list[str]:
    """At commas that are in no brackets: timestamp[ms, UTC] has one."""
    pieces, depth = [""], 0
    for character in text:
        depth += {"<": 1, "[": 1, ">": -1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _wrong(text: str, name: str) -> ConfigError:
    return ConfigError(f"{name}: {text!r} is no type; there are {_EXAMPLES}, …")
