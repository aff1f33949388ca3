"""Parameters that several tasks take alike."""

from __future__ import annotations

from typing import Any

from pipemill.actors.task import Parameter

_PADDING = (True, False, "longest", "max_length", "do_not_pad")
_TRUNCATION = (True, False, "longest_first", "only_first", "only_second", "do_not_truncate")
TEXT = Parameter(None, "str")


def padding(default: Any, null: bool = True) -> Parameter:
    """How a tokenizer pads; null: whether null means something."""
    return Parameter(default, "bool|str|null", (None, *_PADDING) if null else _PADDING)


def truncation(default: Any) -> Parameter:
    """How a tokenizer truncates."""
    return Parameter(default, "bool|str|null", (None, *_TRUNCATION))


def fraction(default: float) -> Parameter:
    """A number from 0 to 1, as probabilities and parts of areas are."""
    return Parameter(default, "float", least=0, most=1)


def count(default: int | None, least: int = 0) -> Parameter:
    """A whole number, of at least that; or null, where that is the default."""
    return Parameter(default, "int|null" if default is None else "int", least=least)


def texts(default: Any, kind: str = "list") -> Parameter:
    """A list of texts (or what `kind` names), which must not be empty."""
    return Parameter(default, kind, each=TEXT, filled=True)
