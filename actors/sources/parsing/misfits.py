"""Describe values that a column can't hold."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from pyarrow import types

from ...columns import is_string

_SHOWN = 80


class Misfit(ValueError):
    """A value of another type than its column's."""

    def __init__(self, column: str, value: Any, kind: pa.DataType, where: str) -> None:
        super().__init__(
            f"column {column!r} is {_shorten(value)}, not {_describe_type(kind)} ({where})"
        )


def _shorten(value: Any) -> str:
    """Return a value as short JSON, or a field of CSV in quotes."""
    text = repr(value) if isinstance(value, bytes) else json.dumps(value, default=str)
    text = getattr(value, "text", text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _describe_type(kind: pa.DataType) -> str:
    """Describe the values of a type."""
    if is_string(kind):
        return "a text"
    if types.is_boolean(kind):
        return "true or false"
    if types.is_integer(kind):
        return f"a whole number ({kind})"
    if types.is_floating(kind):
        return f"a number that {kind} can hold"
    return f"a value of {kind}"
