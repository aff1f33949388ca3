"""What the values of options may be, and what they are turned into."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import typer

from pipemill.errors import ConfigError

from ..execution.supervisor import delay_interrupts


def parse_count(text: str) -> int:
    """Return a number of rows."""
    if not str(text).isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def parse_number(text: str) -> int:
    """Return a number, which may be 0."""
    if not str(text).isdecimal():
        raise typer.BadParameter(f"must be a whole number of at least 0, not {text!r}")
    return int(text)


def parse_price(text: str) -> float:
    """Return a price."""
    price = _parse_positive(text, "a number")
    if math.isinf(price):
        raise typer.BadParameter(f"must be a number above 0, not {text!r}")
    return price


def make_choice(*names: str) -> Callable[[str], str]:
    """Make the parser of an option that takes one of these names."""

    def parse(text: str) -> str:
        if text not in names:
            raise typer.BadParameter(f"must be {' or '.join(names)}, not {text!r}")
        return text

    return parse


def parse_seconds(text: str) -> float:
    """Return a time limit."""
    return _parse_positive(text, "a number of seconds")


def _parse_positive(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise typer.BadParameter(f"must be {what} above 0, not {text!r}")
    return number


def parse_variables(assignments: list[str]) -> dict[str, str]:
    """Return variables by their names; those without a value are read from the environment."""
    variables = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not name or not (equals or name in os.environ):
            raise ConfigError(
                f"--env {text!r} is not of the form NAME=VALUE, and no such variable is set here"
            )
        variables[name] = value if equals else os.environ[name]
    return variables


def parse_columns(assignments: list[str]) -> dict[str, str | None]:
    """Return columns by their names, None for one that is not to be read.

    Names are no YAML: a column may be called `no`, or `2024`.
    """
    columns: dict[str, str | None] = {}
    for text in assignments:
        name, equals, column = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--column {text!r} is not of the form NAME=COLUMN")
        columns[name] = column or None
    return columns


def parse_parameters(assignments: list[str]) -> dict[str, Any]:
    """Return parameters by their names, with values in YAML."""
    with delay_interrupts():
        from ..config.settings import parse_assignment

    return dict(parse_assignment(text) for text in assignments)


def complete_task(incomplete: str) -> list[str]:
    """Return the names of the tasks that begin so."""
    from pipemill.pipelines.registry import ALIASES, task_names

    return [name for name in [*task_names(), *ALIASES] if name.startswith(incomplete)]
