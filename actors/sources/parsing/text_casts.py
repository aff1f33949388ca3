"""Cast texts to numbers, dates and times without making other values of them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

# A decimal of 256 bits holds all numbers of so many digits, or says that it does not.
_MOST_DIGITS = 77


def cast_texts(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast texts, also where Arrow can't. Raises an ArrowException for one that does not fit."""
    if types.is_decimal(kind):  # of 39 digits Arrow makes another number in 128 bits
        _check_digits(texts)
        return texts.cast(pa.decimal256(76, kind.scale)).cast(kind)
    if types.is_time(kind):
        if pc.any(pc.invert(pc.match_substring(texts, ":"))).as_py():  # 10 may be no hour
            raise pa.ArrowInvalid("a time has hours and minutes")
        times = pc.binary_join_element_wise("1970-01-01T", texts.cast(pa.string()), "")
        return times.cast(pa.timestamp(kind.unit)).cast(kind)
    if types.is_duration(kind):
        return texts.cast(pa.int64()).cast(kind)
    return texts.cast(kind)


def _check_digits(texts: pa.Array) -> None:
    """Raise ArrowInvalid for 78 digits: of some, Arrow makes another number in 256 bits."""
    if (pc.max(pc.binary_length(texts)).as_py() or 0) > _MOST_DIGITS:
        digits = pc.replace_substring(texts, ".", "")
        if pc.any(pc.match_substring_regex(digits, f"[1-9][0-9]{{{_MOST_DIGITS}}}")).as_py():
            raise pa.ArrowInvalid("a number of too many digits")
