"""Convert Python values to Arrow columns: also images and arrays, which Arrow does not know."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.ray_columns import is_pickled
from pipemill.actors.sources.parsing.json_values import hides_flag
from pipemill.actors.sources.schemas.file_schemas import cast_rows, map_types, simplify_schema
from pipemill.pipelines.media.encode import encode_png
from pipemill.pipelines.media.picture_files import encode_picture, is_picture

from pipemill.errors import ConfigError, error_message

# Values of which Arrow makes others beside those of another group: a number becomes a time of 1970.
# The first group counts: True is a whole number, too, and a duration of numpy.
_GROUPS: Mapping[str, tuple[type, ...]] = {
    "true or false": (bool, np.bool_),
    "times": (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64),
    "numbers": (int, float, Decimal, np.number),
    "bytes (or images)": (bytes, bytearray),
    "texts (or paths)": (str,),
}
# Types that only their library can read, and whose bare numbers mean something else.
_OPAQUE = ("pandas.period", "pandas.interval", "ray.data.arrow_pickled_object")


def make_column(
    name: object, values: Sequence[Any], first: int = 0, *, nan_is_null: bool = False
) -> pa.Array:
    """Return values as an Arrow column.

    An image becomes the bytes of a file, and so does an array of uint8 that is a picture; other
    arrays become lists.

    Args:
        name: of the column, for messages.
        first: the number of the first row, for messages.
        nan_is_null: whether NaN means that a value is missing, as in pandas. Otherwise NaN is a
            number, except in a column of other values.

    Raises:
        ConfigError: for values that Arrow can't hold, or that have different types.
    """
    try:
        plain = [to_plain(value) for value in values]
        _check_alike(plain)
        if not nan_is_null:
            whole = all(value is None or type(value) is int for value in plain)
            for kind in (None, *([pa.uint64()] if whole else [])):
                with suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
                    return _check_no_flags(plain, pa.array(plain, kind))
        return _check_no_flags(plain, pa.array(plain, from_pandas=True))
    except Exception as error:  # values may be objects of any library
        raise ConfigError(_explain(name, values, first, error)) from None


def _check_alike(values: Sequence[Any]) -> None:
    """Raise TypeError for values of two types of which Arrow would make one, and change some."""
    kinds = {type(value) for value in values}
    groups = {kind: _find_group(kind) for kind in kinds}
    if len({*groups.values()} - {None}) > 1:
        # NaN, which equals nothing, says that there is no value.
        found = {name for value in values if (name := groups[type(value)]) and value == value}
        named = [name for name in _GROUPS if name in found]
        if len(named) > 1:
            raise TypeError(f"they are partly {named[0]} and partly {named[1]}")
    if {datetime.date, datetime.datetime} <= kinds:
        raise TypeError("they are partly dates and partly dates with a time")
    times = [value for value in values if isinstance(value, datetime.datetime)]
    if len({value.tzinfo is None for value in times}) == 2:
        raise TypeError("they are partly times with a time zone and partly without")


def _find_group(kind: type) -> str | None:
    return next((name for name, kinds in _GROUPS.items() if issubclass(kind, kinds)), None)


def _check_no_flags(values: Sequence[Any], array: pa.Array) -> pa.Array:
    if hides_flag(values, array.type):
        raise TypeError("they are partly true or false and partly numbers")
    return array


def make_table(rows: Sequence[Mapping[str, Any]], first: int, owner: str) -> pa.Table:
    """Return dicts as a table with the keys of all of them as columns, in their order.

    Args:
        first: the number of the first row, for messages.
        owner: what the rows are of, for messages.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise ConfigError(f"row {first:,} of {owner} has no keys: each key is a column")
    check_names(names, owner)
    columns = [make_column(name, [row.get(name) for row in rows], first) for name in names]
    return to_storable(pa.table(columns, names=names), owner)


def check_names(names: Iterable[object], owner: str) -> None:
    """Raise ConfigError for columns whose names are no texts, or are not unique."""
    seen = set()
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(
                f"a column of {owner} is called {name!r}, which is not a text: rename it"
            )
        if name in seen:
            raise ConfigError(f"{owner} has two columns named {name!r}: rename one")
        seen.add(name)


def to_storable(table: pa.Table, owner: str) -> pa.Table:
    """Return a table in types that every reader of Parquet knows. Raises ConfigError.

    The features of `datasets` in its metadata are kept.
    """
    check_names(table.column_names, owner)
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = getattr(column.type, "extension_name", "")
        if is_pickled(column.type):  # perhaps because values are missing
            with suppress(ConfigError):
                column = pa.chunked_array([make_column(name, column.to_pylist())])
        if _is_opaque(column.type):
            raise ConfigError(
                f"column {name!r} of {owner} has the type {column.type}, which can't be stored: "
                "convert it to texts, numbers or times"
            )
        if kind.startswith("ray.data.arrow_") and "tensor" in kind:
            cells = [cell for chunk in column.chunks for cell in chunk.to_numpy(False)]
            column = pa.chunked_array([make_column(name, cells)])
        columns.append(_replace_empty_structs(column))
    table = pa.table(columns, names=table.column_names, metadata=table.schema.metadata)
    features = {k: v for k, v in (table.schema.metadata or {}).items() if k == b"huggingface"}
    return cast_rows(table, simplify_schema(table.schema).with_metadata(features or None))


def _is_opaque(kind: pa.DataType) -> bool:
    """Return whether a type, or one in it, is one that only its library can read."""
    seen: list[pa.DataType] = []

    def note(inner: pa.DataType) -> pa.DataType:
        seen.append(inner.value_type if pa.types.is_dictionary(inner) else inner)
        return inner

    map_types(kind, note)
    return any(getattr(inner, "extension_name", "") in _OPAQUE for inner in seen)


def _replace_empty_structs(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with null for a dict without keys, which Parquet has no type for."""
    kind = map_types(column.type, lambda inner: pa.null() if inner == pa.struct([]) else inner)
    if kind == column.type:
        return column
    return pa.chunked_array([pa.array(map(_drop_empty_dicts, column.to_pylist()), kind)])


def _drop_empty_dicts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_empty_dicts(inner) for key, inner in value.items()} or None
    if isinstance(value, list):
        return [_drop_empty_dicts(inner) for inner in value]
    return value


def to_plain(value: Any) -> Any:
    """Return a value as Arrow takes it."""
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    if is_picture(value):
        return encode_picture(value)
    if isinstance(value, datetime.datetime):
        return value if value == value else None  # NaT of pandas, of which Arrow makes the year 1
    if isinstance(value, np.datetime64 | np.timedelta64):
        return _to_plain_time(value)
    if hasattr(value, "__array__") and not np.isscalar(value):
        return _to_plain_array(np.asarray(value))
    return value


def _to_plain_time(value: np.datetime64 | np.timedelta64) -> Any:
    """Return a time of numpy in a unit that Arrow has: a date for days and longer."""
    if np.isnat(value):
        return None
    unit, is_day = np.datetime_data(value.dtype)[0], isinstance(value, np.datetime64)
    if is_day and unit in ("Y", "M", "W", "D"):
        day = value.astype("M8[D]").item()
        return day if isinstance(day, datetime.date) else value  # a number beyond the year 9999
    return value.astype(f"{value.dtype.kind}8[s]") if unit in ("W", "D", "h", "m") else value


def estimate_size(value: Any) -> int:
    """Estimate the bytes of a value."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(estimate_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(estimate_size, value))
    if is_picture(value):
        return 4 * value.width * value.height
    return int(getattr(value, "nbytes", 8))


def _to_plain_array(array: np.ndarray) -> Any:
    is_picture = array.dtype == np.uint8 and (
        array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    )
    if is_picture:
        return encode_png(array) if array.size else b""  # an empty picture, where it is read
    return array if array.ndim == 1 else array.tolist()


def _explain(name: object, values: Sequence[Any], first: int, error: Exception) -> str:
    kinds = {
        type(value).__name__: row
        for row, value in reversed(list(enumerate(values, first)))
        if value is not None
    }
    mixed = ", ".join(
        f"{kind} (row {row:,})" for kind, row in sorted(kinds.items(), key=lambda k: k[1])
    )
    return (
        f"column {name!r}, rows {first:,} to {first + len(values) - 1:,}, can't be stored: "
        f"{' '.join(error_message(error).split())}. Its values are of {mixed}: give it values of "
        "one type that Arrow knows, or leave it out"
    )
