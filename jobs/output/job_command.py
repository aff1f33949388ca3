"""The command that does the job of an output, from its record."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ..config.job import Job
from ..config.task_entry import TaskEntry
from .job_record import JobRecord
from .ledger import Ledger

_SECTIONS = ("model", "input", "output", "batching", "actors")


def format_command(ledger: Ledger, record: JobRecord, verb: str = "run") -> str | None:
    """Return a command, a flag a line; None for rows or a model that were in a Python's memory.

    Options of storage are not stored, so they are not in it.
    """
    job = record.job
    paths = job["input"]["path"]
    paths = [paths] if isinstance(paths, str) else paths
    model = str(job["model"]["path"])
    if any(map(ledger.is_stored_input, paths)) or model.startswith(f"{ledger.path}/"):
        return None
    tasks = [_shorten(entry) for entry in job.get("tasks", ())]
    columns = job["input"].get("columns") or {}
    parameters = {} if tasks else job.get("parameters") or {}
    flags = [
        *([] if tasks else [("--task", str(job["task"])), ("--model", model)]),
        *(("--input", path) for path in paths),
        *(("--column", f"{name}={column or ''}") for name, column in columns.items()),
        ("--output", ledger.path),
        *(("--param", f"{name}={_to_yaml(value)}") for name, value in parameters.items()),
        *([("--set", f"tasks={_to_yaml(tasks)}")] if tasks else []),
        *(("--set", f"{key}={_to_yaml(value)}") for key, value in _list_changed(job)),
    ]
    return " \\\n  ".join([f"pipemill {verb}", *map(shlex.join, flags)])


def _to_yaml(value: Any) -> str:
    is_plain = isinstance(value, str) and yaml.safe_load(value) == value
    return value if is_plain else json.dumps(value)


def _shorten(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of several tasks without the keys that have their defaults."""
    short = TaskEntry.model_validate(entry).model_dump(exclude_defaults=True)
    return {
        **short,
        "model": short["model"]["path"] if len(short["model"]) == 1 else short["model"],
    }


def _list_changed(job: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the other keys that have a value other than the default."""
    given = {"task": "feature-extraction", "model": "m", "input": "i", "output": "o"}
    default = Job.model_validate(given).model_dump()
    of_each_task = ("model", "batching") if job.get("tasks") else ()
    for section in _SECTIONS:
        if section in of_each_task:
            continue
        for key, value in (job.get(section) or {}).items():
            if key not in ("path", "columns") and value != default[section].get(key):
                yield f"{section}.{key}", value
    if job.get("pipeline_class"):
        yield "pipeline_class", job["pipeline_class"]
