"""The columns of JSON rows, by what their values are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from ...columns import matches
from ..parsing.json_values import EXACT, LongNumber

# Marks a column that is kept as JSON text: its values have no type in common.
JSON_TEXT = {b"pipemill": b"json"}
# A struct of more fields is a mapping with keys of its own in each row.
_MOST_FIELDS = 256
_MOST_COLUMNS = 1000
# What pa.array raises for values of different types, lone surrogates, and huge integers.
_UNTYPED = (pa.ArrowException, UnicodeError, OverflowError, ValueError, TypeError)

# Types that were seen are those of Arrow, and two more: whole numbers of which a float does not
# hold all, and what only JSON text holds.
_LARGE = pa.uint64()
_NO_TYPE = pa.binary()
_GROUPS = {bool: "bool", int: "number", float: "number", LongNumber: "number", str: "text",
           list: "list", dict: "struct"}  # fmt: skip


class SeenColumns:
    """What types the values of each column are of, so far.

    too_many: whether there were more columns than a table should have; the last are left out.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, tuple[int, pa.DataType]]] = {}
        self.too_many = False

    def copy(self) -> SeenColumns:
        other = SeenColumns()
        other.too_many = self.too_many
        other._seen = {name: dict(groups) for name, groups in self._seen.items()}
        return other

    def __bool__(self) -> bool:
        return bool(self._seen)

    def add(self, rows: list[dict[str, Any]], any_long: bool) -> None:
        """any_long: whether there may be a `LongNumber` among the values."""
        found: dict[str, list[Any]] = {}
        for row in rows:
            for name, value in row.items():
                found.setdefault(name, []).append(value)
        for name, values in found.items():
            if name not in self._seen:
                if not _is_text(name):
                    continue
                if len(self._seen) == _MOST_COLUMNS:
                    self.too_many = True
                    continue
            given = [value for value in values if value is not None]
            _add(self._seen.setdefault(name, {}), given, any_long)

    def schema(self, kinds: Mapping[str, str]) -> pa.Schema:
        """The columns. kinds: of those that the task reads."""
        return pa.schema(
            [_field(name, groups, kinds.get(name)) for name, groups in self._seen.items()]
        )


def _add(groups: dict[str, tuple[int, pa.DataType]], values: list[Any], any_long: bool) -> None:
    found: dict[str, list[Any]] = {}
    kinds = set(map(type, values))
    if len({_GROUPS[kind] for kind in kinds}) == 1:
        found[_GROUPS[kinds.pop()]] = values
    else:
        for value in values:
            found.setdefault(_GROUPS[type(value)], []).append(value)
    for group, some in found.items():
        count, kind = groups.get(group, (0, pa.null()))
        groups[group] = (count + len(some), _merged(kind, _kind_of_all(some, group, any_long)))


def _field(name: str, groups: dict[str, tuple[int, pa.DataType]], read_as: str | None) -> pa.Field:
    """A column by all that was seen; where values differ, those that the task reads decide."""
    settled = {group: _settled(kind) for group, (_, kind) in groups.items()}
    if read_as is not None and len(settled) > 1:
        good = [g for g, kind in settled.items() if kind is not None and matches(read_as, kind)]
        chosen = max(good or settled, key=lambda group: groups[group][0])
        settled = {chosen: settled[chosen]}
    if not settled:
        return pa.field(name, pa.string())
    kind = next(iter(settled.values())) if len(settled) == 1 else None
    return pa.field(name, pa.string(), metadata=JSON_TEXT) if kind is None else pa.field(name, kind)


def _is_text(name: str) -> bool:
    """Whether a column can have this name: one with a lone surrogate can be written nowhere."""
    try:
        return bool(name.encode()) or not name
    except UnicodeEncodeError:
        return False


def _kind_of_all(values: list[Any], group: str, any_long: bool) -> pa.DataType:
    """Of values that are all texts, or all numbers, …"""
    if group == "text":
        return pa.string()
    if group == "bool":
        return pa.bool_()
    if group == "number":
        return _kind_of_numbers(values)
    if not any_long:
        try:
            return _kind_in(pa.array(values))
        except _UNTYPED:
            pass
    kind = pa.null()
    for value in values:
        kind = _merged(kind, _kind_of(value))
    return kind


def _kind_of_numbers(values: list[Any]) -> pa.DataType:
    kind = pa.null()
    whole = [value for value in values if type(value) is int]
    if whole:
        low, high = min(whole), max(whole)
        if low < -(2**63) or high >= 2**63:
            return _NO_TYPE
        kind = pa.int64() if low >= -EXACT and high <= EXACT else _LARGE
    if len(whole) == len(values):
        return kind
    if any(type(value) is LongNumber for value in values):
        return _NO_TYPE
    return _merged(kind, pa.float64())


def _kind_of(value: Any) -> pa.DataType:
    if value is None:
        return pa.null()
    if type(value) is dict:
        if not all(map(_is_text, value)):
            return _NO_TYPE
        return pa.struct([(name, _kind_of(inner)) for name, inner in value.items()])
    if type(value) is list:
        kind = pa.null()
        for inner in value:
            kind = _merged(kind, _kind_of(inner))
        return pa.list_(kind)
    if type(value) is str and not _is_text(value):
        return _NO_TYPE  # half a character within a list or struct
    return _kind_of_all([value], _GROUPS[type(value)], True)


def _kind_in(array: pa.Array) -> pa.DataType:
    """The type of an array, with whole numbers told apart by their size."""
    if types.is_list(array.type):
        return pa.list_(_kind_in(array.flatten()))
    if types.is_struct(array.type):
        fields = zip(array.type, array.flatten(), strict=True)
        return pa.struct([(field.name, _kind_in(inner)) for field, inner in fields])
    if types.is_integer(array.type):
        return _kind_of_numbers([v for v in _extremes(array) if v is not None] or [0])
    return array.type


def _extremes(array: pa.Array) -> list[int | None]:
    found = pc.min_max(array).as_py()
    return [found["min"], found["max"]]


def _merged(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type of values of both."""
    if a == b or types.is_null(b):
        return a
    if types.is_null(a):
        return b
    if types.is_list(a) and types.is_list(b):
        return pa.list_(_merged(a.value_type, b.value_type))
    if types.is_struct(a) and types.is_struct(b):
        fields = {field.name: field.type for field in a}
        for field in b:
            fields[field.name] = _merged(fields.get(field.name, pa.null()), field.type)
        return pa.struct(list(fields.items()))
    pair = {a, b}
    if pair == {pa.int64(), _LARGE}:
        return _LARGE
    if pair == {pa.int64(), pa.float64()}:
        return pa.float64()
    return _NO_TYPE


def _settled(kind: pa.DataType) -> pa.DataType | None:
    """The type with text for what was always null; None if only JSON text holds the values."""
    if types.is_null(kind):
        return pa.string()
    if kind == _NO_TYPE:
        return None
    if kind == _LARGE:
        return pa.int64()
    if types.is_list(kind):
        inner = _settled(kind.value_type)
        return None if inner is None else pa.list_(inner)
    if types.is_struct(kind):
        inners = [_settled(field.type) for field in kind]
        if not inners or None in inners or len(inners) > _MOST_FIELDS:
            return None
        return pa.struct([(f.name, inner) for f, inner in zip(kind, inners, strict=True)])
    return kind
