"""Run a function over many items at once, and find the ones that make it raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from .blame import is_row_error

T = TypeVar("T")


class SomeFailed(Exception):
    """What a run raises that has found the items at fault by itself, and has done the others.

    Attributes:
        failed: the exception of each item at fault, by its position among the items.
        result: that of the other items, in their order.
    """

    def __init__(self, failed: Mapping[int, BaseException], result: Any) -> None:
        super().__init__(f"{len(failed)} items failed")
        self.failed, self.result = failed, result


def bisect_failures(
    items: np.ndarray, run: Callable[[np.ndarray], T]
) -> tuple[list[tuple[np.ndarray, T]], list[tuple[int, BaseException]]]:
    """Call `run(items)`; if it raises, halve the items until those at fault are alone.

    One bad item among n costs about log2(n) more calls, over at most 2n more items; none if `run`
    raises `SomeFailed`.

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
    except SomeFailed as some:
        good = np.delete(items, list(some.failed))
        failed = [(int(items[at]), error) for at, error in some.failed.items()]
        return [(good, some.result)] if len(good) else [], failed
    except BaseException as error:
        if not is_row_error(error):
            raise
        if len(items) == 1:
            return [], [(int(items[0]), forget_call(error))]
    middle = len(items) // 2
    left, left_failed = bisect_failures(items[:middle], run)
    right, right_failed = bisect_failures(items[middle:], run)
    return left + right, left_failed + right_failed


def forget_call(error: BaseException) -> BaseException:
    """Return the error without its traceback, which keeps alive what the call held, tensors too."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
