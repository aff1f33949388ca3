"""Unify the schemas of files that lack some columns, or differ in types."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...storage.input_file import InputFile
from ...storage.parallel import map_parallel
from .file_schemas import map_types, simplify_schema
from .hf_features import add_features, find_common_features

# Marks a column whose types have no common one. It may be in the input, but can't be read.
_CONFLICT = b"conflict"
# Decimals of this many digits, and whole numbers up to this power of two, are exact as floats.
_DECIMAL_DIGITS = {16: 3, 32: 6, 64: 15}
_MANTISSA_BITS = {16: 11, 32: 24, 64: 53}
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INT64 = (-(2**63), 2**63 - 1)
_MOST_DIGITS = 76  # of a decimal
# Arrow writes the years of times up to 32767 as text.
_TEXT_SECONDS = 30_000 * 366 * 24 * 3600
_NOTHING = (1, 0)
_LOOKED_AT = 64  # files at a time

# Finds the least and the greatest value of a column in a file, as whole numbers, if it has any.
Extremes = Callable[[InputFile, str], tuple[int, int] | None]
# Tells whether a column of a file has a value that is not null.
HasValues = Callable[[InputFile, str], bool]
Range = tuple[int, int]


def unify_columns(
    files: list[InputFile], schemas: list[pa.Schema], extremes: Extremes, has_values: HasValues
) -> pa.Schema:
    """Return the columns of all files together, in the order in which they first appear.

    A column has the type that holds the values of all files; text, if that type would change a
    value (a large whole number as a float). Types of which no file has a value do not count, if
    there is no common type otherwise: pandas writes a column without values as floating-point
    numbers. If there is no common type then, `find_conflict` tells why. The metadata holds the
    features of `datasets` that the files agree on.
    """
    features = find_common_features(schemas)
    # Many files share one schema.
    simplified = {schema: simplify_schema(schema) for schema in set(schemas)}
    schemas = [simplified[schema] for schema in schemas]
    first = {schema: file for file, schema in reversed(list(zip(files, schemas, strict=True)))}
    columns: dict[str, dict[pa.DataType, InputFile]] = {}
    for schema in dict.fromkeys(schemas):
        for field in schema:
            columns.setdefault(field.name, {}).setdefault(field.type, first[schema])
    fields = {name: _unify_column(name, kinds) for name, kinds in columns.items()}
    for name, kinds in columns.items():
        if find_conflict(fields[name]) is not None:
            filled = _leave_out_empty(name, kinds, files, schemas, has_values)
            kinds = filled or dict(list(kinds.items())[:1])
            fields[name] = _unify_column(name, kinds)
        if len(kinds) == 1 or find_conflict(fields[name]) is not None:
            continue
        changed = _find_changed(fields[name], kinds, files, schemas, extremes)
        if (one := next(changed, None)) is None:
            continue
        fields[name] = pa.field(name, pa.string())
        if _are_times(one[0]) and not all(map(_is_told_by_text, chain([one], changed))):
            kinds.pop(pa.null(), None)
            fields[name] = _make_conflict(name, *list(kinds.items())[:2])
    return add_features(pa.schema(list(fields.values())), features)


def _unify_column(name: str, kinds: dict[pa.DataType, InputFile]) -> pa.Field:
    """Return a column of several types. kinds: each with the first file that has it."""
    (kind, owner), *others = kinds.items()
    for other, file in others:
        common = find_common_type(kind, other)
        if common is None:
            return _make_conflict(name, (kind, owner), (other, file))
        kind = common
    return pa.field(name, kind)


def _leave_out_empty(
    name: str,
    kinds: dict[pa.DataType, InputFile],
    files: list[InputFile],
    schemas: list[pa.Schema],
    has_values: HasValues,
) -> dict[pa.DataType, InputFile]:
    """Return the types of a column of which at least one file has a value."""
    owners: dict[pa.DataType, list[InputFile]] = {kind: [] for kind in kinds}
    for file, schema in zip(files, schemas, strict=True):
        index = schema.get_field_index(name)
        if index >= 0:
            owners[schema.field(index).type].append(file)

    def is_filled(kind: pa.DataType) -> bool:
        # Some at a time: of many files the first may tell it, or none of them.
        parts = (owners[kind][i : i + _LOOKED_AT] for i in range(0, len(owners[kind]), _LOOKED_AT))
        return any(any(map_parallel(lambda file: has_values(file, name), part)) for part in parts)

    return {kind: file for kind, file in kinds.items() if is_filled(kind)}


def find_extremes(column: pa.ChunkedArray) -> tuple[int, int] | None:
    """Return the least and the greatest value of a column of numbers or times."""
    if not pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    limits = pc.min_max(column).as_py()
    return None if limits["min"] is None else (limits["min"], limits["max"])


def find_conflict(field: pa.Field) -> str | None:
    """Return why a column can't be read, if its types in the files have no common one."""
    metadata = field.metadata or {}
    return metadata[b"why"].decode() if metadata.get(b"pipemill") == _CONFLICT else None


def find_common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds the values of both, or None."""
    if one == other:
        return one
    common = _promote(one, other)
    if common is None:
        # Dictionaries become plain values, and times of all zones UTC.
        common = _promote(map_types(one, _simplify), map_types(other, _simplify))
    if common is not None and pa.types.is_floating(common) and not _are_floats(one, other):
        return pa.float64()
    return common and _widen_floats(_widen_decimals(common, one, other), one, other)


def _widen_floats(common: pa.DataType, *kinds: pa.DataType) -> pa.DataType:
    """Give floats the digits of decimals: inside of others Arrow unifies the two to any float."""

    def count_decimals(kind: pa.DataType) -> int:
        return sum(map(pa.types.is_decimal, _list_types(kind)))

    if max(map(count_decimals, kinds)) <= count_decimals(common):
        return common
    return map_types(common, lambda kind: pa.float64() if pa.types.is_floating(kind) else kind)


def _widen_decimals(common: pa.DataType, *kinds: pa.DataType) -> pa.DataType:
    """Give decimals the digits of whole numbers: Arrow unifies the two to one digit too few."""
    inner = [_list_types(kind) for kind in kinds]
    longest = max((_count_digits(kind) for kind in chain(*inner)), default=0)

    def widen(kind: pa.DataType) -> pa.DataType:
        if not pa.types.is_decimal(kind) or all(kind in types for types in inner):
            return kind
        digits = min(max(kind.precision, longest + kind.scale), _MOST_DIGITS)
        return (pa.decimal128 if digits <= 38 else pa.decimal256)(digits, kind.scale)

    return map_types(common, widen) if longest else common


def _list_types(kind: pa.DataType) -> list[pa.DataType]:
    """List a type and all types in it."""
    found: list[pa.DataType] = []
    map_types(kind, lambda one: found.append(one) or one)  # type: ignore[func-returns-value]
    return found


def _count_digits(kind: pa.DataType) -> int:
    """Return how many digits the whole numbers of a type have at most; 0 for another type."""
    if not pa.types.is_integer(kind):
        return 0
    return len(str(2 ** (kind.bit_width - pa.types.is_signed_integer(kind))))


def _promote(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    pair = [pa.schema([pa.field("column", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(pair, promote_options="permissive").field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):  # invalid: decimals of too many digits together
        return None


def _simplify(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")
    return kind


def _are_floats(*kinds: pa.DataType) -> bool:
    return all(pa.types.is_floating(kind) or pa.types.is_null(kind) for kind in kinds)


def _make_conflict(
    name: str, one: tuple[pa.DataType, InputFile], other: tuple[pa.DataType, InputFile]
) -> pa.Field:
    why = (
        f"column {name!r} is {one[0]} in {one[1].path} and {other[0]} in {other[1].path}, which "
        "have no common type: rewrite one of the files with the other's type"
    )
    return pa.field(name, pa.null(), metadata={b"pipemill": _CONFLICT, b"why": why.encode()})


def _find_changed(
    field: pa.Field,
    kinds: Container[pa.DataType],
    files: list[InputFile],
    schemas: list[pa.Schema],
    extremes: Extremes,
) -> Iterator[tuple[pa.DataType, Range | None]]:
    """Yield the types whose values the type of a column would change, with the values' range.

    kinds: the types that the column's type was made of.
    """
    for file, schema in zip(files, schemas, strict=True):
        index = schema.get_field_index(field.name)
        kind = None if index < 0 else schema.field(index).type
        limits = None if kind not in kinds else _find_exact_range(kind, field.type)
        if limits is None:
            continue
        values = None if limits == _NOTHING else extremes(file, field.name)
        if limits == _NOTHING or (values and not limits[0] <= values[0] <= values[1] <= limits[1]):
            yield kind, values


def _is_told_by_text(changed: tuple[pa.DataType, Range | None]) -> bool:
    """Tell whether times are the same as text: one of a duration would have no unit."""
    kind, values = changed
    if pa.types.is_duration(kind) or values is None:
        return False
    return max(map(abs, values)) <= _TEXT_SECONDS * _TICKS[kind.unit]


def _find_exact_range(kind: pa.DataType, wide: pa.DataType) -> Range | None:
    """Return the range of a type's values that a wider type holds exactly; None if it holds all.

    Times count as whole numbers of their unit.
    """
    exact: Range | None = None
    if pa.types.is_decimal(kind) and pa.types.is_floating(wide):
        return None if kind.precision <= _DECIMAL_DIGITS[wide.bit_width] else _NOTHING
    if pa.types.is_integer(kind) and pa.types.is_floating(wide):
        most = 2 ** _MANTISSA_BITS[wide.bit_width]
        exact = (-most, most)
    elif pa.types.is_integer(kind) and pa.types.is_decimal(wide):
        most = 10 ** (wide.precision - wide.scale) - 1
        exact = (-most, most)
    elif pa.types.is_uint64(kind) and pa.types.is_int64(wide):
        exact = _INT64
    elif _are_times(kind, wide) and kind.unit != wide.unit:
        factor = _TICKS[wide.unit] // _TICKS[kind.unit]
        exact = (-(_INT64[1] // factor), _INT64[1] // factor)
    return exact if exact is None or not _is_within(kind, exact) else None


def _are_times(*kinds: Any) -> bool:
    return all(map(pa.types.is_timestamp, kinds)) or all(map(pa.types.is_duration, kinds))


def _is_within(kind: pa.DataType, limits: Range) -> bool:
    """Tell whether no value of an integer type is beyond the limits."""
    if not pa.types.is_integer(kind):
        return False
    if pa.types.is_signed_integer(kind):
        most = 2 ** (kind.bit_width - 1)
        return limits[0] <= -most and most - 1 <= limits[1]
    return 2**kind.bit_width - 1 <= limits[1]
