"""Read the arguments of a call of question-answering, which take several forms."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

_KEYS = ("question", "context")


@dataclass(frozen=True)
class Example:
    """A question and the text that may hold its answer."""

    question_text: str
    context_text: str


def to_example(item: Any) -> Any:
    """Convert a mapping to an `Example`; return an object with an example's attributes as it is.

    A mapping with lists of questions and contexts becomes a list of examples.

    Raises:
        KeyError: if a key is missing.
        ValueError: if a value is None or empty.
    """
    if hasattr(item, "question_text") and hasattr(item, "context_text"):
        return item
    if not isinstance(item, Mapping):
        raise ValueError(
            f"{item!r} is neither a dictionary with question and context nor an example"
        )
    for key in _KEYS:
        if key not in item:
            raise KeyError(f"no {key!r} in {sorted(map(str, item))}; give question and context")
        if item[key] is None:
            raise ValueError(f"`{key}` cannot be None")
        if item[key] == "":
            raise ValueError(f"`{key}` cannot be empty")
    question, context = item["question"], item["context"]
    if isinstance(question, list):
        return [to_example(pair) for pair in _pair_questions(question, context)]
    return Example(question, context)


def read_call(args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Return the examples of a call as a list; generators and datasets as they are.

    Raises:
        ValueError: for arguments that have no known form.
    """
    inputs = _select_argument(args, named)
    if isinstance(inputs, (types.GeneratorType, Dataset)):
        return inputs
    if isinstance(inputs, Mapping):
        inputs = [inputs]
    if not isinstance(inputs, Iterable):
        raise ValueError(f"cannot read questions from {inputs!r}; give question= and context=")
    return [to_example(_check_keys(item)) for item in inputs]


def _select_argument(args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    if len(args) == 1:
        return args[0]
    if len(args) == 2 and all(type(arg) is str for arg in args):
        return _pair_questions(*args)
    if args:
        return list(args)
    for old in ("X", "data"):
        if old in named:
            warnings.warn(f"{old}= is deprecated: give question= and context=", FutureWarning, 4)
            return named[old]
    if all(key in named for key in _KEYS):
        return _pair_questions(named["question"], named["context"])
    raise ValueError(f"no question= and context= among the arguments {sorted(named)}")


def _pair_questions(question: Any, context: Any) -> list[dict[str, Any]]:
    """Return one dictionary per question; several questions may share one context."""
    if isinstance(question, list) and isinstance(context, str):
        context = [context] * len(question)
    elif isinstance(question, str) and isinstance(context, str):
        question, context = [question], [context]
    if not (isinstance(question, list) and isinstance(context, list)):
        raise ValueError(
            "question and context must be two strings, two lists, or a list of questions and one "
            f"context, not {type(question).__name__} and {type(context).__name__}"
        )
    if len(question) != len(context):
        raise ValueError(
            f"there are {len(question)} questions, but {len(context)} contexts: give one for each"
        )
    return [{"question": q, "context": c} for q, c in zip(question, context, strict=True)]


def _check_keys(item: Any) -> Any:
    unknown = set(item) - set(_KEYS) if isinstance(item, Mapping) else ()
    if unknown:
        raise TypeError(
            f"unexpected keys {sorted(map(str, unknown))}: give question and context alone"
        )
    return item
