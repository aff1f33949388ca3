"""A task whose pipeline the user brings, in a package or in the model's folder."""

from __future__ import annotations

from dataclasses import replace

from pipemill.actors.task import KINDS, Column

from .pipeline_task import PipelineTask
from .registry import find_task
from .task_spec import check_nothing


def user_pipeline_task(name: str, columns: tuple[str, ...]) -> PipelineTask:
    """Return the task of that name, done by a pipeline of which nothing is known.

    Args:
        name: that of a known task, whose columns the pipeline then reads; or any other name, and
            the pipeline reads `columns`.
        columns: those that the job names. A column that a known task does not read is a parameter
            of the pipeline that differs by row.
    """
    try:
        known = find_task(name)
    except LookupError:
        return PipelineTask(name=name, inputs=tuple(map(_make_column, columns)), any_parameter=True)
    declared = known.declared or PipelineTask(name=name, inputs=known.inputs)
    beside = set(columns) - {column.name for column in declared.inputs}
    more = (Column(name=own, kind="any", required=False, parameter=True) for own in sorted(beside))
    return replace(
        declared,
        inputs=(*declared.inputs, *more),
        # Its parameters may mean something else to the user's pipeline.
        parameters={},
        checks=check_nothing,
        suits=check_nothing,
        sample=None,
        any_parameter=True,
    )


def _make_column(name: str) -> Column:
    return Column(name=name, kind=name if name in KINDS else "any", required=False)
