"""The cases that transformers 4.57.6 has answered, and how an answer is compared."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REFERENCES = Path(__file__).parent.parent / "references"


def cases(task: str) -> list[Any]:
    """The reference cases of a task, as parameters of a test."""
    told = json.loads((REFERENCES / f"{task.replace('-', '_')}.json").read_text())
    return [
        pytest.param(task, case, id=f"{task}-{case['model']}-{number}")
        for number, case in enumerate(told)
    ]


def check(task: str, case: dict[str, Any], show: Any) -> None:
    """The installed transformers answers the case as 4.57.6 did."""
    # Not imported above: the file needs torch, which a collection of tests does without.
    from tests.references import answers

    def answer() -> Any:
        made = json.dumps(case.get("made", {}))
        return answers.ask(_loaded(case.get("task", task), case["model"], made), case)

    if "error" in case:
        with pytest.raises(Exception) as told:
            answer()
        assert type(told.value).__name__ == case["error"]
    else:
        assert show(answer()) == _close(case["answer"])


@cache
def _loaded(task: str, model: str, made: str) -> Any:
    from tests.references import answers

    return answers.load(task, model, json.loads(made))


def check_rows_differ(task: str) -> None:
    """Of every list of rows, each has another answer: a swapped one would be seen."""
    for parameter in cases(task):
        case = parameter.values[1]
        if isinstance(case.get("answer"), list) and isinstance(case["input"], list):
            rows = [json.dumps(row) for row in case["answer"]]
            assert len(set(rows)) == len(rows), case


def _close(expected: Any) -> Any:
    """The same, with floats that may be 1e-4 off."""
    if isinstance(expected, float):
        return pytest.approx(expected, abs=1e-4)
    if isinstance(expected, list):
        return [_close(item) for item in expected]
    if isinstance(expected, dict):
        return {key: _close(value) for key, value in expected.items()}
    return expected
