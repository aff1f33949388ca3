"""Count answers that say nothing: nulls, and numbers that are NaN or infinite."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow_arrays import combine_chunks
from ..columns import is_list

# The names in `Batch.stats`; a count of 0 is left out.
EMPTY = ("nan_rows", "null_answers")
# A column of lists of answers: an empty list is not an answer, either.
_ANSWERS = "answers"


def count_empty(results: pa.Table, rows: np.ndarray) -> dict[str, int]:
    """Count rows with NaN or infinite numbers (`nan_rows`) and without an answer (`null_answers`).

    Args:
        results: the task's result columns; the first one tells whether there is an answer.
        rows: the numbers of the rows that did not fail.

    Returns:
        The counts that are not 0.
    """
    if not len(rows) or not results.num_columns:
        return {}
    odd = np.zeros(results.num_rows, dtype=bool)
    for column in results.columns:
        if _holds_floats(column.type):
            odd |= _find_not_finite(combine_chunks(column))
    counts = {
        "nan_rows": int(np.count_nonzero(odd[rows])),
        "null_answers": int(np.count_nonzero(_find_missing(results)[rows])),
    }
    return {name: count for name, count in counts.items() if count}


def _find_missing(results: pa.Table) -> np.ndarray:
    first, name = combine_chunks(results.column(0)), results.column_names[0]
    missing = first.is_null()
    if name == _ANSWERS and pa.types.is_list(first.type):
        missing = pc.or_(missing, pc.equal(pc.fill_null(pc.list_value_length(first), 0), 0))
    return missing.to_numpy(zero_copy_only=False)


def _holds_floats(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_floats(kind.storage_type)
    if pa.types.is_struct(kind):
        return any(_holds_floats(field.type) for field in kind)
    return _holds_floats(kind.value_type) if is_list(kind) else pa.types.is_floating(kind)


def _find_not_finite(array: pa.Array) -> np.ndarray:
    """Mark values that are NaN or infinite, or hold such a number inside; never nulls."""
    kind = array.type
    odd = np.zeros(len(array), dtype=bool)
    if isinstance(kind, pa.BaseExtensionType):
        return _find_not_finite(array.storage)
    if pa.types.is_struct(kind):
        for field, values in zip(kind, array.flatten(), strict=True):
            if _holds_floats(field.type):
                odd |= _find_not_finite(values)
    elif is_list(kind):
        inner = _find_not_finite(array.flatten())
        if inner.any():
            odd[pc.list_parent_indices(array).to_numpy()[inner]] = True
    elif pa.types.is_floating(kind):
        # Arrow's nulls become NaN in numpy.
        odd = ~np.isfinite(array.to_numpy(zero_copy_only=False))
        if array.null_count:
            odd &= array.is_valid().to_numpy(zero_copy_only=False)
    return odd
