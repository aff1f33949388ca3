"""One schema for files that each have their own: columns that some lack, types that differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...storage.input_file import InputFile
from .file_schemas import map_types, plain
from .hf_features import common_features, with_features

# Marks a column that has types which can't be one; it may be in the input, but not be read.
_CONFLICT = b"conflict"
# So many decimal digits, and whole numbers up to a power of two, are the same as floating point.
_DECIMAL_DIGITS = {16: 3, 32: 6, 64: 15}
_MANTISSA_BITS = {16: 11, 32: 24, 64: 53}
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INT64 = (-(2**63), 2**63 - 1)
_NOTHING = (1, 0)

# The least and the greatest value of a column in a file, as whole numbers; None if there is none.
Extremes = Callable[[InputFile, str], tuple[int, int] | None]
Range = tuple[int, int]


def unify_columns(
    files: list[InputFile], schemas: list[pa.Schema], extremes: Extremes
) -> pa.Schema:
    """Return the columns of all files together, in the order in which they first appear.

    A type is the one that holds the values of all files. Where the only common type would change a
    value (a large whole number as floating point), the column is text. Where no type is common,
    `conflict_of` tells why. Its notes tell the features of `datasets` that the files agree on.
    """
    features = common_features(schemas)
    of_schema = {schema: plain(schema) for schema in set(schemas)}  # many files, few schemas
    schemas = [of_schema[schema] for schema in schemas]
    first = {schema: file for file, schema in reversed(list(zip(files, schemas, strict=True)))}
    fields: dict[str, pa.Field] = {}
    owners: dict[str, InputFile] = {}
    mixed: set[str] = set()
    for schema in dict.fromkeys(schemas):
        for field in schema:
            known = fields.setdefault(field.name, field)
            owner = owners.setdefault(field.name, first[schema])
            if known.type == field.type or conflict_of(known) is not None:
                continue
            mixed.add(field.name)
            common = common_type(known.type, field.type)
            fields[field.name] = (
                _conflict(field.name, (known.type, owner), (field.type, first[schema]))
                if common is None
                else pa.field(field.name, common)
            )
    for name in mixed:
        if conflict_of(fields[name]) is None and _changes(fields[name], files, schemas, extremes):
            fields[name] = pa.field(name, pa.string())
    return with_features(pa.schema(list(fields.values())), features)


def extremes(column: pa.ChunkedArray) -> tuple[int, int] | None:
    """Return the least and the greatest value of a column of numbers or times."""
    if not pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    found = pc.min_max(column).as_py()
    return None if found["min"] is None else (found["min"], found["max"])


def conflict_of(field: pa.Field) -> str | None:
    """Tell why a column can't be read, if its types in the files can't be one."""
    notes = field.metadata or {}
    return notes[b"why"].decode() if notes.get(b"pipemill") == _CONFLICT else None


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds the values of both, or None."""
    if one == other:
        return one
    found = _promoted(one, other)
    if found is None:
        # Plain values hold those of dictionaries; the same instants can be told in any time zone.
        found = _promoted(map_types(one, _undressed), map_types(other, _undressed))
    if found is not None and pa.types.is_floating(found) and not _are_floats(one, other):
        return pa.float64()
    return found


def _promoted(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    pair = [pa.schema([pa.field("column", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(pair, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        return None


def _undressed(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")
    return kind


def _are_floats(*kinds: pa.DataType) -> bool:
    return all(pa.types.is_floating(kind) or pa.types.is_null(kind) for kind in kinds)


def _conflict(
    name: str, one: tuple[pa.DataType, InputFile], other: tuple[pa.DataType, InputFile]
) -> pa.Field:
    why = (
        f"column {name!r} is {one[0]} in {one[1].path} and {other[0]} in {other[1].path}, which "
        "can't be one column: write one of the files with the other's type"
    )
    return pa.field(name, pa.null(), metadata={b"pipemill": _CONFLICT, b"why": why.encode()})


def _changes(
    field: pa.Field, files: list[InputFile], schemas: list[pa.Schema], extremes: Extremes
) -> bool:
    """Tell whether the type of a column would change a value of a file."""
    for file, schema in zip(files, schemas, strict=True):
        place = schema.get_field_index(field.name)
        limits = None if place < 0 else _unchanged(schema.field(place).type, field.type)
        if limits is None:
            continue
        found = None if limits == _NOTHING else extremes(file, field.name)
        if limits == _NOTHING or (found and not limits[0] <= found[0] <= found[1] <= limits[1]):
            return True
    return False


def _unchanged(kind: pa.DataType, wide: pa.DataType) -> Range | None:
    """Return the values of a type that a wider one holds unchanged; None if it holds all.

    Times are whole numbers of their unit.
    """
    whole: Range | None = None
    if pa.types.is_decimal(kind) and pa.types.is_floating(wide):
        return None if kind.precision <= _DECIMAL_DIGITS[wide.bit_width] else _NOTHING
    if pa.types.is_integer(kind) and pa.types.is_floating(wide):
        most = 2 ** _MANTISSA_BITS[wide.bit_width]
        whole = (-most, most)
    elif pa.types.is_integer(kind) and pa.types.is_decimal(wide):
        most = 10 ** (wide.precision - wide.scale) - 1
        whole = (-most, most)
    elif pa.types.is_uint64(kind) and pa.types.is_int64(wide):
        whole = _INT64
    elif _are_times(kind, wide) and kind.unit != wide.unit:
        factor = _TICKS[wide.unit] // _TICKS[kind.unit]
        whole = (-(_INT64[1] // factor), _INT64[1] // factor)
    return whole if whole is None or not _is_within(kind, whole) else None


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
