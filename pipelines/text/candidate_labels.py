"""Candidate labels, and the template that turns each into a hypothesis."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from string import Formatter
from typing import Any

from pipemill.actors.task import Parameter

# The parameter of tasks that rank labels which the user gives.
CANDIDATE_LABELS = Parameter(None, "str|list|null", each=Parameter(None, "str|null"), filled=True)


def parse_labels(value: Any) -> list[str]:
    """Return the labels of a value.

    Args:
        value: a list of labels, one text with commas between them, or a list as a text of JSON or
            as Python prints it: columns of CSV hold lists like that. Nulls are left out.

    Raises:
        ValueError: if no label is left.
    """
    if isinstance(value, str):
        listed = read_list(value)
        split = [part.strip() for part in value.split(",") if part.strip()]
        labels = split if listed is None else listed
    else:
        labels = [label for label in value if label is not None]
    if not labels:
        raise ValueError(f"candidate_labels {value!r} holds no label: give at least one")
    return labels


def read_list(text: str) -> list[str] | None:
    """Return the texts of a list that a text holds, as in columns of CSV; None for another text."""
    if not (text.strip().startswith("[") and text.strip().endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(one, str | None) for one in found):
            return [one for one in found if one is not None]
    return None


class HypothesisTemplate:
    """A text in which one {} stands for the label.

    As in `str.format`, {{ and }} are braces. No other placeholder is allowed: `str.format` would
    follow names into objects, and fill gigabytes for a width.
    """

    def __init__(self, text: Any) -> None:
        """Parse a template. Raise ValueError for one without {}, or with other placeholders."""
        wrong = ValueError(
            f"hypothesis_template {_shorten(text)} must hold {{}} once, where the label goes, and "
            "no other placeholder ({{ and }} are braces)"
        )
        if not isinstance(text, str):
            raise wrong
        try:
            parts = list(Formatter().parse(text))
        except ValueError:
            raise wrong from None
        placeholders = [i for i, (_, name, *_) in enumerate(parts) if name is not None]
        if len(placeholders) != 1 or parts[placeholders[0]][1:] != ("", "", None):
            raise wrong
        after = placeholders[0] + 1
        self._before = "".join(literal for literal, *_ in parts[:after])
        self._after = "".join(literal for literal, *_ in parts[after:])

    def fill(self, label: str) -> str:
        """Return the hypothesis for a label."""
        return f"{self._before}{label}{self._after}"


def check_candidate_labels(parameters: Mapping[str, Any]) -> None:
    """Raise ValueError for labels or a template that are given and can't be right."""
    if parameters.get("candidate_labels") is not None:
        parse_labels(parameters["candidate_labels"])
    if parameters.get("hypothesis_template") is not None:
        HypothesisTemplate(parameters["hypothesis_template"])


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
