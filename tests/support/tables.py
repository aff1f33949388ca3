"""Tables that hold the same answers: floats may differ in their last digits."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa


def same_rows(one: pa.Table, other: pa.Table) -> bool:
    """Two processes may compute with another kernel, or in other micro-batches."""
    return one.schema.equals(other.schema) and _same(one.to_pylist(), other.to_pylist())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
