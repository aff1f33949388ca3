"""Turn parsed JSON into columns without loss. A value that does not fit is a misfit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from ...arrow_arrays import scatter
from ...columns import is_list, is_string
from ...faults.bisect import bisect_failures
from .json_parser import LongNumber, to_json_text
from .text_casts import cast_texts

# A float holds all whole numbers up to this one.
EXACT = 2**53


def fit_values(
    values: list[Any],
    kind: pa.DataType,
    *,
    as_text: bool = False,
    any_long: bool = True,
    rounds: bool = False,
) -> tuple[pa.Array, list[int]]:
    """Return the values as an array, null for misfits, and the numbers of the misfits.

    as_text: whether a column of text takes other values as JSON.
    any_long: whether there may be a `LongNumber` among the values.
    rounds: whether a float may round a number with more digits than it holds.
    """
    if is_string(kind):
        return _fit_texts(values, kind, as_text)
    quick = None if any_long else _convert_at_once(values, kind)
    if quick is not None:
        return quick, []
    if _is_cast_from_text(kind):
        return _cast_all(values, kind)
    converted: list[Any] = []
    misfits: list[int] = []
    for i, value in enumerate(values):
        try:
            converted.append(_fit_exactly(value, kind, rounds))
        except (ValueError, TypeError, OverflowError, pa.ArrowException):
            converted.append(None)
            misfits.append(i)
    # A value that Arrow refuses is a misfit, too.
    pieces, refused = bisect_failures(
        np.arange(len(converted)), lambda rows: pa.array([converted[i] for i in rows], kind)
    )
    return scatter(pieces, len(values), kind), sorted({*misfits, *(i for i, _ in refused)})


def _cast_all(values: list[Any], kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Fit values to a type of which each is cast from its text, many at once."""
    texts = [_to_cast_text(value) for value in values]
    there = np.flatnonzero([text is not None for text in texts])
    pieces, refused = bisect_failures(
        there, lambda rows: cast_texts(pa.array([texts[i] for i in rows], pa.string()), kind)
    )
    misfits = [i for i, value in enumerate(values) if value is not None and texts[i] is None]
    return scatter(pieces, len(values), kind), sorted({*misfits, *(i for i, _ in refused)})


def _to_cast_text(value: Any) -> str | None:
    """Return the text that a value of a date, time or decimal is cast from; None for a misfit."""
    if type(value) is int or isinstance(value, float):
        return to_json_text(value)
    return value if type(value) is str else None


def is_nested(kind: pa.DataType) -> bool:
    """Tell whether a type is a struct or a list."""
    return types.is_struct(kind) or is_list(kind)


def _is_cast_from_text(kind: pa.DataType) -> bool:
    return types.is_temporal(kind) or types.is_decimal(kind)


def _fit_texts(values: list[Any], kind: pa.DataType, as_text: bool) -> tuple[pa.Array, list[int]]:
    try:
        if all(type(value) is str or value is None for value in values):
            return pa.array(values, kind), []
    except UnicodeEncodeError:
        pass
    texts: list[str | None] = []
    misfits: list[int] = []
    for i, value in enumerate(values):
        if value is None or (type(value) is str and _is_valid_text(value)):
            texts.append(value)
        elif as_text:
            texts.append(to_json_text(value))
        else:
            texts.append(None)
            misfits.append(i)
    return pa.array(texts, kind), misfits


def _is_valid_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _convert_at_once(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    """Convert all values at once, or return None if Arrow sees a type that does not fit."""
    if types.is_fixed_size_list(kind):
        return None
    try:
        seen = pa.array(values)
        if hides_flag(values, seen.type):
            return None
        if seen.type == kind:
            return seen
        return pa.array(values, kind) if _holds(kind, seen.type) else None
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None


def hides_flag(values: Iterable[Any], kind: pa.DataType) -> bool:
    """Tell whether `true` or `false` is among fractions, for which Arrow makes 1.0 or 0.0 of it.

    kind: the type that Arrow gives the values.
    """
    if types.is_floating(kind):
        return bool in set(map(type, values))
    if types.is_list(kind) and _holds_floats(kind):
        lists = (value for value in values if type(value) is list)
        return hides_flag(chain.from_iterable(lists), kind.value_type)
    if types.is_struct(kind) and _holds_floats(kind):
        structs = [value for value in values if isinstance(value, dict)]
        return any(hides_flag((s.get(f.name) for s in structs), f.type) for f in kind)
    return False


def _holds_floats(kind: pa.DataType) -> bool:
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return types.is_floating(kind) or any(map(_holds_floats, inner))


def _holds(kind: pa.DataType, seen: pa.DataType) -> bool:
    """Tell whether all values of the type `seen` are values of the type `kind`."""
    if types.is_null(seen) or seen == kind:
        return True
    if types.is_list(seen) and types.is_list(kind):
        return _holds(kind.value_type, seen.value_type)
    if types.is_struct(seen) and types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        return all(f.name in fields and _holds(fields[f.name], f.type) for f in seen)
    return False


def _fit_exactly(value: Any, kind: pa.DataType, rounds: bool) -> Any:
    """Return a value as `pa.array` takes it for a type. Raises ValueError for a misfit."""
    if value is None:
        return None
    if is_string(kind):
        if type(value) is str and _is_valid_text(value):
            return value
    elif types.is_boolean(kind):
        if type(value) is bool:
            return value
    elif types.is_integer(kind):
        if type(value) is int or (_is_float(value) and value.is_integer()):
            return int(value)
    elif types.is_floating(kind):
        return _fit_float(value, kind, rounds)
    elif types.is_struct(kind):
        if type(value) is dict and value.keys() <= {field.name for field in kind}:
            return {f.name: _fit_exactly(value.get(f.name), f.type, rounds) for f in kind}
    elif is_list(kind):
        if type(value) is list:
            return [_fit_exactly(item, kind.value_type, rounds) for item in value]
    elif types.is_binary(kind) or types.is_large_binary(kind):
        if type(value) is str:
            return value.encode()
    elif (text := _to_cast_text(value)) is not None:
        return cast_texts(pa.array([text]), kind)[0]
    raise ValueError(value)


def _fit_float(value: Any, kind: pa.DataType, rounds: bool) -> float:
    if type(value) is not int and not _is_float(value) and not (rounds and _is_long(value)):
        raise ValueError(value)
    narrow = float(pa.scalar(float(value), pa.float64()).cast(kind, safe=False).as_py())
    if type(value) is int and int(narrow) != value:
        raise ValueError(value)
    if math.isinf(narrow) and not math.isinf(value):
        raise ValueError(value)
    return float(value)


def _is_float(value: Any) -> bool:
    return isinstance(value, float) and type(value) is not LongNumber


def _is_long(value: Any) -> bool:
    return type(value) is LongNumber and math.isfinite(value)
