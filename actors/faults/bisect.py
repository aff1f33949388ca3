"""Run a function over many items at once, and find the ones that make it raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from .blame import is_row_error

T = TypeVar("T")


def bisect_failures(
    items: np.ndarray, run: Callable[[np.ndarray], T]
) -> tuple[list[tuple[np.ndarray, T]], list[tuple[int, BaseException]]]:
    """Call `run(items)`; if it raises, halve the items until those at fault are alone.

    One bad item among n costs about log2(n) more calls, over at most 2n more items.

    Args:
        items: shape (n,).
        run: called with some of the items.

    Returns:
        The pieces that succeeded, as (items, result) in the order of the items; and the single
        items that failed, each with its exception.

    Raises:
        BaseException: an error that is not a row's fault (`is_row_error`).
    """
    if len(items) == 0:
        return [], []
    try:
        return [(items, run(items))], []
    except BaseException as error:
        if not is_row_error(error):
            raise
        if len(items) == 1:
            # Its traceback would keep everything alive that the call held, tensors too.
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return [], [(int(items[0]), error)]
    middle = len(items) // 2
    left, left_failed = bisect_failures(items[:middle], run)
    right, right_failed = bisect_failures(items[middle:], run)
    return left + right, left_failed + right_failed
