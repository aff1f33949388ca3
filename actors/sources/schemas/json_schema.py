"""Infer the columns of JSON rows from their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from ...columns import matches
from ..parsing.json_parser import LongNumber
from ..parsing.json_values import EXACT, hides_flag

# Marks a column that is kept as JSON text, since its values have no common type.
JSON_TEXT = {b"pipemill": b"json"}
# A struct with more fields is likely a mapping whose keys differ in each row.
_MOST_FIELDS = 256
_MOST_COLUMNS = 1000
# Parquet can't be read again if its types are nested much deeper.
_MOST_LEVELS = 32
# What pa.array raises for values of different types, lone surrogates, and huge integers.
_UNTYPED = (pa.ArrowException, UnicodeError, OverflowError, ValueError, TypeError)

# Seen types are Arrow's, and two more: whole numbers that are too large for a float, and values
# that only JSON text can hold.
_LARGE = pa.uint64()
_NO_TYPE = pa.binary()
_GROUPS = {bool: "bool", int: "number", float: "number", LongNumber: "number", str: "text",
           list: "list", dict: "struct"}  # fmt: skip


class SeenColumns:
    """The types of the values seen so far, by column.

    too_many: whether there were more columns than a table should have; the last are left out.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, tuple[int, pa.DataType]]] = {}
        self.too_many = False

    def __bool__(self) -> bool:
        return bool(self._seen)

    def add(self, rows: list[dict[str, Any]], any_long: bool) -> None:
        """Add rows. any_long: whether there may be a `LongNumber` among the values."""
        columns: dict[str, list[Any]] = {}
        for row in rows:
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
        for name, values in columns.items():
            if name not in self._seen:
                if not _is_text(name):
                    continue
                if len(self._seen) == _MOST_COLUMNS:
                    self.too_many = True
                    continue
            present = [value for value in values if value is not None]
            _add(self._seen.setdefault(name, {}), present, any_long)

    def schema(self, kinds: Mapping[str, str]) -> pa.Schema:
        """Return the columns. kinds: what the task reads columns as."""
        return pa.schema(
            [_choose_field(name, groups, kinds.get(name)) for name, groups in self._seen.items()]
        )


def _add(groups: dict[str, tuple[int, pa.DataType]], values: list[Any], any_long: bool) -> None:
    by_group: dict[str, list[Any]] = {}
    kinds = set(map(type, values))
    if len({_GROUPS[kind] for kind in kinds}) == 1:
        by_group[_GROUPS[kinds.pop()]] = values
    else:
        for value in values:
            by_group.setdefault(_GROUPS[type(value)], []).append(value)
    for group, members in by_group.items():
        count, kind = groups.get(group, (0, pa.null()))
        groups[group] = (
            count + len(members),
            _merge(kind, _infer_group_type(members, group, any_long)),
        )


def _choose_field(
    name: str, groups: dict[str, tuple[int, pa.DataType]], read_as: str | None
) -> pa.Field:
    """Choose the type of a column. If several were seen, what the task reads it as decides."""
    final = {
        group: _finalize(kind) if _count_levels(kind) <= _MOST_LEVELS else None
        for group, (_, kind) in groups.items()
    }
    if read_as is not None and len(final) > 1:
        good = [g for g, kind in final.items() if kind is not None and matches(read_as, kind)]
        chosen = max(good or final, key=lambda group: groups[group][0])
        final = {chosen: final[chosen]}
    if not final:
        return pa.field(name, pa.string())
    kind = next(iter(final.values())) if len(final) == 1 else None
    return pa.field(name, pa.string(), metadata=JSON_TEXT) if kind is None else pa.field(name, kind)


def _is_text(name: str) -> bool:
    """Tell whether a column can have a name: a lone surrogate can't be encoded."""
    try:
        return bool(name.encode()) or not name
    except UnicodeEncodeError:
        return False


def _infer_group_type(values: list[Any], group: str, any_long: bool) -> pa.DataType:
    """Return the type of values of one group, such as texts or numbers."""
    if group == "text":
        return pa.string()
    if group == "bool":
        return pa.bool_()
    if group == "number":
        return _infer_number_type(values)
    if not any_long:
        try:
            array = pa.array(values)
            if not hides_flag(values, array.type):
                return _infer_array_type(array)
        except _UNTYPED:
            pass
    kind = pa.null()
    for value in values:
        kind = _merge(kind, _infer_type(value))
    return kind


def _infer_number_type(values: list[Any]) -> pa.DataType:
    kind = pa.null()
    integers = [value for value in values if type(value) is int]
    if integers:
        low, high = min(integers), max(integers)
        if low < -(2**63) or high >= 2**63:
            return _NO_TYPE
        kind = pa.int64() if low >= -EXACT and high <= EXACT else _LARGE
    if len(integers) == len(values):
        return kind
    if any(type(value) is LongNumber for value in values):
        return _NO_TYPE
    return _merge(kind, pa.float64())


def _infer_type(value: Any) -> pa.DataType:
    if value is None:
        return pa.null()
    if type(value) is dict:
        if not all(map(_is_text, value)):
            return _NO_TYPE
        return pa.struct([(name, _infer_type(inner)) for name, inner in value.items()])
    if type(value) is list:
        kind = pa.null()
        for inner in value:
            kind = _merge(kind, _infer_type(inner))
        return pa.list_(kind)
    if type(value) is str and not _is_text(value):
        return _NO_TYPE  # a lone surrogate in a list or struct
    return _infer_group_type([value], _GROUPS[type(value)], True)


def _infer_array_type(array: pa.Array) -> pa.DataType:
    """Return the type of an array, with whole numbers by their size."""
    if types.is_list(array.type):
        return pa.list_(_infer_array_type(array.flatten()))
    if types.is_struct(array.type):
        fields = zip(array.type, array.flatten(), strict=True)
        return pa.struct([(field.name, _infer_array_type(inner)) for field, inner in fields])
    if types.is_integer(array.type):
        limits = pc.min_max(array).as_py().values()
        return _infer_number_type([limit for limit in limits if limit is not None] or [0])
    return array.type


def _merge(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Return the type that holds the values of both."""
    if a == b or types.is_null(b):
        return a
    if types.is_null(a):
        return b
    if types.is_list(a) and types.is_list(b):
        return pa.list_(_merge(a.value_type, b.value_type))
    if types.is_struct(a) and types.is_struct(b):
        fields = {field.name: field.type for field in a}
        for field in b:
            fields[field.name] = _merge(fields.get(field.name, pa.null()), field.type)
        return pa.struct(list(fields.items()))
    pair = {a, b}
    if pair == {pa.int64(), _LARGE}:
        return _LARGE
    if pair == {pa.int64(), pa.float64()}:
        return pa.float64()
    return _NO_TYPE


def _count_levels(kind: pa.DataType) -> int:
    """Return how deep lists and structs are nested in a type."""
    fields = (kind.field(i) for i in range(kind.num_fields))
    return max((1 + _count_levels(field.type) for field in fields), default=0)


def _finalize(kind: pa.DataType) -> pa.DataType | None:
    """Replace null types by text; return None if only JSON text holds the values."""
    if types.is_null(kind):
        return pa.string()
    if kind == _NO_TYPE:
        return None
    if kind == _LARGE:
        return pa.int64()
    if types.is_list(kind):
        inner = _finalize(kind.value_type)
        return None if inner is None else pa.list_(inner)
    if types.is_struct(kind):
        inners = [_finalize(field.type) for field in kind]
        if not inners or None in inners or len(inners) > _MOST_FIELDS:
            return None
        return pa.struct([(f.name, inner) for f, inner in zip(kind, inners, strict=True)])
    return kind
