"""Hint at the key that the author of a config meant."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from pipemill.errors import did_you_mean

_NOT_SECTIONS = ("task", "parameters", "pipeline_class", "tasks")
# What other libraries call a setting, and what to do with it here.
ELSEWHERE = {
    "batch_size": "leave it out: micro-batches are measured (batching.max_tokens limits them)",
    "concurrency": "did you mean 'actors.max'?",
    "device": "leave it out: GPUs are used where there are any (actors.num_gpus decides otherwise)",
    "num_workers": "did you mean 'actors.max'?",
    "overwrite": "leave it out, and name another output, or remove this one",
    "resume": "leave it out: the same job again finishes its output",
    "torch_dtype": "did you mean 'model.dtype'?",
    "where": "it stands in an entry of 'tasks'",
}


def hint_key(
    name: str, keys: Iterable[str], job: type[BaseModel], parameters: Container[str] = ()
) -> str:
    """Return a hint on an unknown key, to end an error message with.

    Args:
        name: the key.
        keys: those that stand where it does.
        job: the class whose sections may have it.
        parameters: those of the job's task.

    Returns:
        The same key in other sections, else the nearest one of `keys`, else all of these.
    """
    keys = list(keys)
    if name in keys:
        return did_you_mean(name, keys)
    if places := find_sections(name, job, parameters):
        return f"did you mean {' or '.join(repr(f'{place}.{name}') for place in places)}?"
    return ELSEWHERE.get(name) or did_you_mean(name, keys)


def find_sections(name: str, job: type[BaseModel], parameters: Container[str] = ()) -> list[str]:
    """Return the sections of a job that have a key, where `parameters` are those of its task."""
    sections = [section for section in job.model_fields if section not in _NOT_SECTIONS]
    found = [section for section in sections if name in list_keys(job, [section])]
    return [*found, "parameters"] if name in parameters else found


def list_parameters(data: Mapping[str, Any]) -> set[str]:
    """Return the parameters that the tasks of a config take; none of a task that is unknown."""
    from pipemill.pipelines.registry import find_task

    tasks = data.get("tasks")
    entries = [data, *tasks] if isinstance(tasks, list | tuple) else [data]
    names = [one.get("task") for one in entries if isinstance(one, Mapping)]
    parameters: set[str] = set()
    for name in names:
        with suppress(LookupError, TypeError):  # another type than a text
            parameters.update(find_task(name or "").parameters)
    return parameters


def list_keys(model: type[BaseModel], parents: Iterable[str]) -> list[str]:
    """Return the keys of the section that `parents` lead to."""
    for parent in (key for key in parents if not key.isdecimal()):
        annotation = model.model_fields[parent].annotation
        options = [annotation, *get_args(annotation)]
        model = next(
            o
            for o in options
            if get_origin(o) is None and isinstance(o, type) and issubclass(o, BaseModel)
        )
    return list(model.model_fields)
