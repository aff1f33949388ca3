"""Say in a line for each key what is wrong with a config."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from .key_hints import hint_key, list_keys, list_parameters

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

IN_PYTHON = "the job"  # the source of a config without a file
_OF_COLUMNS = ("columns", "schema")  # mappings whose keys are names of columns
_LONGEST = 200  # characters of a value in a message
# What pydantic says of a value, by its type of error, in words that a config's author knows. Names
# in braces are those of the error's context.
_REASONS = {
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
}


def explain_errors(
    error: ValidationError,
    job: type[BaseModel],
    data: Mapping[str, Any],
    where: str = IN_PYTHON,
) -> str:
    """Return a line for each key of a config that is wrong.

    Args:
        error: what pydantic says.
        job: the class that it says it of.
        data: the config.
        where: the config's source.
    """
    return "\n".join(_format_errors(error, job, list_parameters(data), where))


def _format_errors(
    error: ValidationError, job: type[BaseModel], parameters: set[str], where: str
) -> list[str]:
    """Format one message per key.

    For a union of types, pydantic has one error per branch; they become one message.
    """
    all_keys = _list_all_keys(job)
    messages: dict[str, str] = {}
    missing: list[str] = []
    reasons_by_key: dict[str, list[str]] = {}
    for problem in error.errors():
        *parents, last = problem["loc"] or ("",)
        # For a union, pydantic also names the branch that it tried, which is not a key.
        keys = [
            str(key)
            for place, key in enumerate(parents)
            if key in all_keys or (place and parents[place - 1] == "tasks")
        ]
        if problem["type"] == "invalid_key" or last == "[key]":
            key: Any = parents[-1] if last == "[key]" else last
            # pydantic makes 0 of false, as which YAML reads "no", and a text of a date's code.
            if isinstance(problem["input"], int | float | datetime.date):
                key = problem["input"]
            messages[f"{keys}{key}"] = _describe_no_text(key, keys, where)
            continue
        if problem["type"] == "extra_forbidden":
            full = ".".join([*keys, str(last)])
            hint = hint_key(str(last), list_keys(job, keys), job, parameters)
            messages[full] = f"unknown key {full!r} in {where}; {hint}"
            continue
        is_key = last in all_keys or (parents and parents[-1] in _OF_COLUMNS)
        full = ".".join([*keys, *([str(last)] if is_key else [])])
        if problem["type"] == "missing":
            missing.append(repr(full))
            continue
        reason = _explain(problem)
        reasons = reasons_by_key.setdefault(full, [])
        _add_reason(reasons, reason)
        value = _shorten(problem["input"])
        if not problem["loc"]:
            messages[full] = f"{where}: {reason}"
            continue
        given = "" if f"not {value}" in reason else f" (it is {value})"
        if problem["type"] == "string_type":
            given += _advise_quotes(problem["input"])
        messages[full] = f"{full!r} in {where}: {', or '.join(reasons)}{given}"
    if missing:
        are = "is" if len(missing) == 1 else "are"
        return [f"{', '.join(missing)} {are} missing in {where}", *messages.values()]
    return list(messages.values())


def _describe_no_text(key: Any, parents: list[str], where: str) -> str:
    """Return the message on a key that YAML reads as something else than a text."""
    shown = str(key) if isinstance(key, datetime.date) else repr(key)
    inside = f" of {'.'.join(parents)!r}" if parents else ""
    return f"the key {shown}{inside} in {where} is not a text{_advise_quotes(key)}"


def _add_reason(reasons: list[str], reason: str) -> None:
    """Add what else a value of a union may be, to be joined by "or"."""
    known = [one.removeprefix("must be ") for one in reasons]
    if known:
        reason = reason.removeprefix("must be ")
    # A whole number is a number.
    if reason not in known and (reason, known) != ("a whole number", ["a number"]):
        reasons.append(reason)


def _advise_quotes(value: Any) -> str:
    """Return what to do with a value of YAML, and of Python, that was meant to be a text."""
    if not isinstance(value, bool | int | float | datetime.date):
        return ""
    advice = ": put it in quotes"
    if isinstance(value, bool):
        advice += ", since YAML reads yes, no, on and off as true and false"
    return advice


def _explain(problem: ErrorDetails) -> str:
    if plain := _REASONS.get(problem["type"]):
        return f"must be {plain.format_map(problem.get('ctx', {}))}"
    if problem["type"] in ("dict_type", "model_type"):
        return "must hold keys"
    return problem["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ", 1)


def _shorten(value: Any) -> str:
    if not isinstance(value, str | bytes | int | float | list | tuple | dict | None):
        return f"a {type(value).__name__}"
    text = re.sub(r"\n\s*", " ", repr(value))  # that of a DatasetDict has several lines
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _list_all_keys(job: type[BaseModel]) -> set[str]:
    plain = ("task", "parameters", "pipeline_class")
    sections = [name for name in job.model_fields if name not in plain]
    return set(job.model_fields).union(*(list_keys(job, [section]) for section in sections))
