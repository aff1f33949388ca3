"""Run a function over many items at once, and find the ones that make it raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from pipemill.errors import error_message

from .out_of_memory import is_out_of_memory

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


def is_row_error(error: BaseException) -> bool:
    """Return whether a row may be at fault, so that other rows may succeed.

    After a CUDA error every call on that device fails, unless memory ran out. The error of a
    library that is not installed says that no row is at fault (`no_rows_fault`). An error that is
    not an `Exception` stops the process, with two exceptions: a tokenizer written in Rust panics
    with a class derived from BaseException, and user code may raise those that end coroutines.
    """
    if type(error).__name__ in ("PanicException", "GeneratorExit", "CancelledError"):
        return True
    if getattr(error, "no_rows_fault", False):
        return False
    message = error_message(error)
    lost = "CUDA error" in message or "device-side assert" in message
    return isinstance(error, Exception) and (not lost or is_out_of_memory(error))
