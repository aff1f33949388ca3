"""Settings of single keys, KEY.KEY=VALUE, over a config."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from typing import Any

from pipemill.errors import ConfigError, did_you_mean

from ..rows.find_rows import holds_rows
from .loaded_model import read_model_section
from .yaml_text import parse_yaml


def apply_settings(data: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply KEY.KEY=VALUE settings to a config, in place, and return it. The values are YAML.

    One of several tasks is found by its name or its number: `tasks.mood.where`, `tasks.0.model`.
    """
    for setting in settings:
        keys, value = parse_assignment(setting)
        section = data
        *parents, last = keys.split(".")
        if parents[:1] == ["tasks"]:
            section, parents = _open_task(data, [*parents, last], setting), parents[2:]
        for key in parents:
            section[key] = to_section(key, section.get(key))
            section = section[key]
        section[last] = value
    return data


def _open_task(data: dict[str, Any], keys: list[str], setting: str) -> dict[str, Any]:
    """Return the entry of the task that a setting is for, as a copy in a copy of the list."""
    tasks = data.get("tasks")
    if not isinstance(tasks, list | tuple) or not all(isinstance(t, Mapping) for t in tasks):
        raise ConfigError(f"{setting!r}: the job has no list of tasks in which to set a key")
    if len(keys) < 3:
        raise ConfigError(
            f"{setting!r}: name the key of the task, too, as in tasks.{keys[1]}.where=…"
        )
    labels = [str(task.get("name") or task.get("task")) for task in tasks]
    places = [place for place, label in enumerate(labels) if keys[1] in (label, str(place))]
    if not places:
        hint = did_you_mean(keys[1], labels)
        raise ConfigError(f"{setting!r}: no task is called {keys[1]!r}, or has this number; {hint}")
    data["tasks"] = list(tasks)
    data["tasks"][places[0]] = entry = dict(tasks[places[0]])
    return entry


def parse_assignment(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE, with the value as YAML.

    Raises:
        ConfigError: for another form, and for a value that is not YAML.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"{text!r} is not of the form NAME=VALUE")
    return name, parse_yaml(value, f"the value of {name!r} is not YAML: {value!r}")


def _describe(value: object) -> str:
    """Return what a value is, and what to do with it, where that is known."""
    if isinstance(value, str | int | float | list):
        return f"the value {value!r}"
    kind = f"a {type(value).__name__}"
    if inspect.isroutine(value):
        return f"{kind}: call it, and give what it returns"
    if hasattr(type(value), "__getitem__") and hasattr(type(value), "__len__"):
        return f"{kind}: give its rows, (rows[i] for i in range(len(rows)))"
    return kind


def to_section(key: str, value: Any) -> dict[str, Any]:
    """Return a section as a mapping. A path alone stands for one."""
    if key == "model":
        value = read_model_section(value)
    if key == "input" and holds_rows(value):
        return {"path": value}
    if key in ("model", "input", "output") and isinstance(value, str | list | os.PathLike):
        return {"path": os.fspath(value) if isinstance(value, os.PathLike) else value}
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{key!r} must hold keys, not {_describe(value)}")
    return dict(value or {})
