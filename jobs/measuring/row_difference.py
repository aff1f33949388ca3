"""Compare the values of two rows, as Python has them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa

_PNG = b"\x89PNG\r\n\x1a\n"


def read_row(table: pa.Table, row: int) -> list[Any]:
    """Return the values of a row; Arrow's own where Python has none, such as a time far away."""
    values = []
    for column in table.columns:
        try:
            values.append(column[row].as_py())
        except (OverflowError, ValueError):
            values.append(column[row])
    return values


def max_difference(one: Any, other: Any) -> float:
    """Return the largest difference of the numbers in two values, relative above 1.

    It is infinite if anything else differs. Two NaN are equal, and so are two pictures whose pixels
    are at most one level apart: a number that was between two levels was rounded.
    """
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((max_difference(one[name], other[name]) for name in one), default=0.0)
    # The entries of a map are tuples.
    if isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
        return max((max_difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, float | int):
        if one == other or (one != one and other != other):
            return 0.0
        apart = abs(one - other) / max(1.0, abs(other))
        return apart if apart == apart else float("inf")
    if isinstance(one, bytes) and isinstance(other, bytes) and one != other:
        return 0.0 if _are_alike(one, other) else float("inf")
    return 0.0 if one == other else float("inf")


def _are_alike(one: bytes, other: bytes) -> bool:
    if not (one.startswith(_PNG) and other.startswith(_PNG)):
        return False
    from PIL import Image

    try:
        pictures = [Image.open(io.BytesIO(data)) for data in (one, other)]
        if len({(picture.mode, picture.size) for picture in pictures}) > 1:
            return False
        if pictures[0].mode in ("1", "P"):  # a mask; places in a palette
            return False
        first, second = (np.asarray(picture, np.int64) for picture in pictures)
    except Exception:  # of broken files Pillow raises any error
        return False
    return bool(np.abs(first - second).max(initial=0) <= 1)
