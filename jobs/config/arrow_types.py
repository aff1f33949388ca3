"""Parse Arrow types written as text, such as list<struct<label: string, score: float>>."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from pipemill.errors import ConfigError

_EXAMPLES = (
    "string, bool, int64, float32, binary, list<string>, struct<label: string, score: float>"
)

# Arrow can't take rows of views.
_VIEWS = {"string_view": pa.string(), "binary_view": pa.binary()}


def parse_schema(columns: Mapping[str, str], key: str = "output.schema") -> pa.Schema:
    """Parse the types of columns to a schema.

    Args:
        columns: Arrow types as text, by column name.
        key: the config's key that holds them, for messages.

    Raises:
        ConfigError: for an unknown type, and for no columns.
    """
    if not columns:
        raise ConfigError(f"{key} must name at least one column")
    return pa.schema([(name, _parse_type(text, f"{key}.{name}")) for name, text in columns.items()])


def _parse_type(text: str, key: str) -> pa.DataType:
    """Parse one type. key: the config's key that holds it, for messages."""
    head, bracket, rest = text.strip().partition("<")
    inner, closed, size = rest.rpartition(">")
    if not bracket:
        try:
            return _parse_parametric(head) or _VIEWS.get(head) or pa.type_for_alias(head)
        except ValueError:
            raise _make_type_error(text, key) from None
    if head == "struct" and closed and not size:
        fields = [field.partition(":") for field in _split_fields(inner)]
        names = [field.strip() for field, _, _ in fields]
        if all(names) and len(set(names)) == len(names):
            types = [_parse_type(type_text, key) for _, _, type_text in fields]
            return pa.struct(list(zip(names, types, strict=True)))
    if head == "list" and closed and not size:
        return pa.list_(_parse_type(_strip_item_name(inner), key))
    if head == "fixed_size_list" and re.fullmatch(r"\[\d+\]", size):
        return pa.list_(_parse_type(_strip_item_name(inner), key), int(size[1:-1]))
    raise _make_type_error(text, key)


def _parse_parametric(text: str) -> pa.DataType | None:
    """Return a type that has a time zone, or a precision, as Arrow prints it; None for others."""
    if time := re.fullmatch(r"timestamp\[(s|ms|us|ns), *(?:tz=)?([^\]]+)\]", text):
        return pa.timestamp(time[1], time[2].strip())
    if decimal := re.fullmatch(r"decimal(128|256)\((\d+), *(\d+)\)", text):
        make = pa.decimal128 if decimal[1] == "128" else pa.decimal256
        return make(int(decimal[2]), int(decimal[3]))
    return None


def _strip_item_name(text: str) -> str:
    """Return a list's type without the name that Arrow prints before it: list<item: string>."""
    return re.sub(r"^\s*(item|element)\s*:", "", text)


def _split_fields(text: str) -> list[str]:
    """Split at the commas outside brackets: timestamp[ms, UTC] has one inside."""
    pieces, depth = [""], 0
    for character in text:
        depth += {"<": 1, "[": 1, "(": 1, ">": -1, "]": -1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _make_type_error(text: str, key: str) -> ConfigError:
    return ConfigError(f"{key}: {text!r} is not an Arrow type; examples are {_EXAMPLES}")
