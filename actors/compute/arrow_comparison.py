"""Give the values of a comparison types in which Arrow compares any of them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# Arrow compares no views and no floats of 16 bits, and takes numbers of 64 bits for signed ones.
_COMPARABLE = {
    pa.float16(): pa.float32(),
    pa.string_view(): pa.large_string(),
    pa.binary_view(): pa.large_binary(),
    pa.uint64(): pa.decimal128(20, 0),
}


def combine_flat(
    how: Callable[[Any, Any], pc.Expression], parts: Sequence[pc.Expression]
) -> pc.Expression:
    """Combine expressions as a flat tree: Arrow computes one by recursion."""
    while len(parts) > 1:
        pairs = [parts[start : start + 2] for start in range(0, len(parts), 2)]
        parts = [reduce(how, pair) for pair in pairs]
    return parts[0]


def make_unknown() -> pc.Expression:
    """Return what is neither true nor false. Not a constant: to make it takes pandas along."""
    return pc.scalar(pa.scalar(None, pa.bool_()))


def to_comparable(rows: pa.Table) -> pa.Table:
    """Return the columns in types for which Arrow can compare every value with every number."""
    for place, field in enumerate(rows.schema):
        kind = _COMPARABLE.get(field.type)
        if kind is not None:
            rows = rows.set_column(place, field.name, rows.column(place).cast(kind))
    return rows


def find_type(node: ast.expr, schema: pa.Schema) -> pa.DataType:
    """Return the type of a side of a comparison; null for one that is not known."""
    if isinstance(node, ast.Name) and node.id in schema.names:
        return schema.field(node.id).type
    try:
        value = ast.literal_eval(node)
        return pa.float64() if isinstance(value, float) else to_scalar(value, schema).type
    except (ValueError, TypeError, SyntaxError, pa.ArrowException):
        return pa.null()


def to_float(number: pc.Expression, kind: pa.DataType) -> pc.Expression:
    """Return a number as the nearest float. Of the decimal 0.35 Arrow itself makes another one."""
    if pa.types.is_decimal(kind):
        number = number.cast(pa.string())
    return number.cast(pa.float64(), safe=False)


def to_scalar(value: Any, schema: pa.Schema) -> pa.Scalar:
    """Return a value as Arrow's. A decimal is compared with decimals, and may be large."""
    if not isinstance(value, int) or isinstance(value, bool):
        return pa.scalar(value)
    is_decimal = any(map(pa.types.is_decimal, schema.types)) or not _fits(value)
    return pa.scalar(Decimal(value) if is_decimal else value)


def to_array(values: Sequence[Any]) -> pa.Array:
    """Return the values of a list as Arrow's, all of one type."""
    if all(isinstance(value, int) for value in values) and not all(map(_fits, values)):
        return pa.array([Decimal(value) for value in values])
    if any(isinstance(value, float) for value in values):
        values = [float(value) if type(value) is int else value for value in values]
    return pa.array(values)


def _fits(value: int) -> bool:
    return -(2**63) <= value < 2**63
