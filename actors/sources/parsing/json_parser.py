"""Parse lines of JSON without loss: numbers keep their digits where Python's floats can't."""

from __future__ import annotations

import codecs
import json
import math
from decimal import Decimal
from typing import Any

# Python may be set to refuse whole numbers of more digits (sys.set_int_max_str_digits).
_LONGEST_INTEGER = 640


class SpelledNumber(float):
    """A number that is not written as Python would write it.

    text: how it is written.
    """

    text: str

    @classmethod
    def of(cls, value: float, text: str) -> SpelledNumber:
        number = cls(value)
        number.text = text
        return number


class LongNumber(SpelledNumber):
    """A number that a float can't hold: it has more than 17 digits, or is too large."""


class Parser:
    """Parses the lines of a file, and notes what json.loads would lose.

    spells: whether numbers keep their text, for columns that hold JSON.

    found_long, found_spelled: whether there was a `LongNumber`, a `SpelledNumber` so far.
    repeated: keys that the last parsed line has twice in an object, with different values.
    """

    def __init__(self, spells: bool = False) -> None:
        self.spells = spells
        self.found_long = self.found_spelled = False
        self.repeated: set[str] = set()
        self._decoder = json.JSONDecoder(
            parse_float=self._build_number, object_pairs_hook=self._build_object
        )
        # Python refuses to make a whole number of so many digits.
        self._patient_decoder = json.JSONDecoder(
            parse_float=self._build_number,
            parse_int=self._build_integer,
            object_pairs_hook=self._build_object,
        )

    def parse(self, line: bytes) -> Any:
        """Parse a line. Raises ValueError, such as UnicodeDecodeError and JSONDecodeError."""
        self.repeated = set()
        text = line.removeprefix(codecs.BOM_UTF8).decode("utf-8")
        try:
            return self._decoder.decode(text)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return self._patient_decoder.decode(text)

    def _build_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            self.repeated |= {name for name, value in pairs if row[name] != value}
        return row

    def _build_integer(self, text: str) -> int | float:
        return self._build_number(text) if len(text) > _LONGEST_INTEGER else int(text)

    def _build_number(self, text: str) -> float:
        value = float(text)
        if (len(text) <= 18 and value and math.isfinite(value)) or _is_exact(text, value):
            if not self.spells or repr(value) == text:
                return value
            self.found_spelled = True
            return SpelledNumber.of(value, text)
        self.found_long = self.found_spelled = True
        return LongNumber.of(value, text)


def _is_exact(text: str, value: float) -> bool:
    """Tell whether a number, which is long, zero or infinite, equals its text."""
    exact = Decimal(text)
    if not math.isfinite(value) or bool(value) != bool(exact):
        return False
    return len(exact.as_tuple().digits) <= 17 or Decimal(repr(value)) == exact


def to_json_text(value: Any, any_spelled: bool = True) -> str:
    """Return a parsed value as JSON.

    any_spelled: whether it may hold a `SpelledNumber`.
    """
    if any_spelled and _has_spelled(value):
        return _spell_numbers(value)
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can write
        return json.dumps(value)
    return text


def _has_spelled(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_spelled, value.values()))
    if isinstance(value, list):
        return any(map(_has_spelled, value))
    return isinstance(value, SpelledNumber)


def _spell_numbers(value: Any) -> str:
    if isinstance(value, SpelledNumber):
        return value.text
    if isinstance(value, dict):
        pairs = (f"{to_json_text(name, False)}: {_spell_numbers(v)}" for name, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_spell_numbers, value))}]"
    return to_json_text(value, False)
