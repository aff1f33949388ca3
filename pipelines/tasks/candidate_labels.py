"""Candidate labels, and the template that makes a hypothesis of each."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from pipemill.actors.task import Parameter

# Of the tasks that rank labels of the user's.
CANDIDATE_LABELS = Parameter(None, "str|list|null", each=Parameter(None, "str|null"), filled=True)


def parse_labels(value: Any) -> list[str]:
    """A list of labels, without nulls; one text is several labels with commas between them.

    Raises ValueError if no label is left.
    """
    if isinstance(value, str):
        labels = [part.strip() for part in value.split(",") if part.strip()]
    else:
        labels = [label for label in value if label is not None]
    if not labels:
        raise ValueError(f"candidate_labels {value!r} holds no label")
    return labels


class HypothesisTemplate:
    """A text in which one {} stands for the label.

    Raises ValueError for any other placeholder: `str.format` would follow names into objects, and
    fill gigabytes for a width. As there, {{ and }} are braces.
    """

    def __init__(self, text: Any) -> None:
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
        places = [i for i, (_, name, *_) in enumerate(parts) if name is not None]
        if len(places) != 1 or parts[places[0]][1:] != ("", "", None):
            raise wrong
        self._before = "".join(literal for literal, *_ in parts[: places[0] + 1])
        self._after = "".join(literal for literal, *_ in parts[places[0] + 1 :])

    def with_label(self, label: str) -> str:
        return f"{self._before}{label}{self._after}"


def check_candidate_labels(parameters: Mapping[str, Any]) -> None:
    """Raises ValueError for labels or a template, where they are given, that can't be right."""
    if parameters.get("candidate_labels") is not None:
        parse_labels(parameters["candidate_labels"])
    if parameters.get("hypothesis_template") is not None:
        HypothesisTemplate(parameters["hypothesis_template"])


def _shorten(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 100 else f"{told[:100]}…"
