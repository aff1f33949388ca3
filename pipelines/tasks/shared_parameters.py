"""Parameters that several tasks have in common, and columns that give them by row."""

from __future__ import annotations

from typing import Any

from pipemill.actors.task import Column, Parameter

_PADDING = (True, False, "longest", "max_length", "do_not_pad")
_TRUNCATION = (True, False, "longest_first", "only_first", "only_second", "do_not_truncate")
TEXT = Parameter(None, "str")
TOP_K = Column(name="top_k", kind="number", required=False, parameter=True)


def padding(default: Any, null: bool = True) -> Parameter:
    """Return a parameter for how a tokenizer pads. null: whether it may be null."""
    return Parameter(default, "bool|str|null", (None, *_PADDING) if null else _PADDING)


def truncation(default: Any) -> Parameter:
    """Return a parameter for how a tokenizer truncates."""
    return Parameter(default, "bool|str|null", (None, *_TRUNCATION))


def fraction(default: float) -> Parameter:
    """Return a parameter for a number from 0 to 1, such as a probability or a part of an area."""
    return Parameter(default, "float", least=0, most=1)


def count(default: int | None, least: int = 0) -> Parameter:
    """Return a parameter for a whole number of at least `least`.

    It may be null if that is the default.
    """
    return Parameter(default, "int|null" if default is None else "int", least=least)


def texts(default: Any, types: str = "list") -> Parameter:
    """Return a parameter for a list of texts, which must not be empty.

    types: names of the types that it takes, as in `Parameter.kind`.
    """
    return Parameter(default, types, each=TEXT, filled=True)


def sample_image(pipeline: Any = None, given: Any = None) -> Any:
    """Return a small image to try parameters with: a `PipelineTask.sample`."""
    from PIL import Image

    return Image.new("RGB", (32, 32), "gray")
