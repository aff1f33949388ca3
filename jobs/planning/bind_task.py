"""Find the columns of the input that a task reads, and check its condition on rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pipemill.pipelines.task_columns import (
    check_one_of,
    list_inputs,
    map_source_names,
    resolve_columns,
    with_inputs,
)

from pipemill.errors import ConfigError

from .columns import check_conflicts, check_features, note_columns
from .resolve_task import ResolvedTask, select_parameters

if TYPE_CHECKING:
    from ..config.job import Job


@dataclass(frozen=True, kw_only=True)
class BoundTask:
    """A task, and the input's columns that it reads.

    Attributes:
        job: the job as if it had this task alone.
        columns: the input's column for each of the task's.
        notes: what users may not expect of the columns.
    """

    job: Job
    task: ResolvedTask
    parameters: dict[str, Any]
    columns: Mapping[str, str]
    notes: tuple[str, ...]


def with_named_columns(
    schema: pa.Schema, task: ResolvedTask, keep: Literal["all"] | list[str]
) -> pa.Schema:
    """Give an input without rows, which alone would show its columns, those that the job names:
    in conditions, and to be kept."""
    named = [*_list_condition_columns(schema, task), *([] if keep == "all" else keep)]
    for name in dict.fromkeys(named):
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.null()))
    return schema


def _list_condition_columns(schema: pa.Schema, task: ResolvedTask) -> list[str]:
    return [
        name for number in range(len(task.steps)) for name in _find_unknown(task, number, schema)
    ]


def _find_unknown(task: ResolvedTask, number: int, schema: pa.Schema) -> list[str]:
    """Return the columns of a step's condition that are neither the input's nor earlier tasks'."""
    condition = task.steps[number].condition
    named = [] if condition is None else [n for n in condition.columns if n not in schema.names]
    return [name for name in named if not name.startswith(_list_prefixes(task, number))]


def _list_prefixes(task: ResolvedTask, number: int) -> tuple[str, ...]:
    """Return how the columns begin that the tasks before one add."""
    return tuple(step.entry.prefix for step in task.steps[:number])


def check_conditions(task: ResolvedTask, schema: pa.Schema) -> set[str]:
    """Return the columns that the tasks' conditions read.

    Raises ConfigError for a condition that can't be tested. One on columns that earlier tasks add
    is checked by the worker, which knows them; here are only the beginnings of their names.
    """
    asked: set[str] = set()
    for number, step in enumerate(task.steps):
        if (condition := step.condition) is None:
            continue
        asked.update(condition.columns)
        if not number or set(condition.columns) <= set(schema.names):
            try:
                condition.check(schema)
            except ValueError as error:
                raise ConfigError(f"where of {step.entry.label}: {error}") from None
            continue
        if unknown := _find_unknown(task, number, schema):
            raise ConfigError(
                f"where of {step.entry.label}: {condition.text!r} names {unknown[0]!r}, which is "
                f"no column here: {', '.join(schema.names)}, and those of earlier tasks, which "
                f"begin with {' or '.join(_list_prefixes(task, number))}"
            )
    return asked


def bind_task(job: Job, task: ResolvedTask, schema: pa.Schema, keep: list[str]) -> BoundTask:
    """Find the columns of the input that a task reads. Raises ConfigError."""
    task = replace(task, spec=with_inputs(task.spec, schema))
    parameters = select_parameters(job, task.spec)
    inputs = list_inputs(task.spec, parameters)
    names = map_source_names((c for c in inputs if c.name not in parameters), job.input.columns)
    check_conflicts(schema, names.values(), keep)
    named = task.spec.name, inputs, job.input.columns, parameters, schema
    columns = resolve_columns(*named)
    check_one_of(task.spec, columns, parameters)
    check_features(columns, schema)
    return BoundTask(
        job=job,
        task=task,
        parameters=parameters,
        columns=columns,
        notes=(*note_columns(*named), *task.followed.notes),
    )
