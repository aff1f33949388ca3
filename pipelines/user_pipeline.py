"""A task whose pipeline the user brings, in a package or in the model's folder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipemill.actors.task import KINDS, Column

from .pipeline_task import PipelineTask
from .registry import find_task
from .tasks.plain import PLAIN_TASKS


def user_pipeline_task(name: str, columns: tuple[str, ...]) -> PipelineTask:
    """The task of that name, done by a pipeline of which nothing is known.

    name: that of a task, whose columns it then reads; or any other, and `columns` are read.
    columns: those that the job names; what a known task does not read is a parameter of the
        pipeline that each row has of its own.
    """
    try:
        known = find_task(name)
    except LookupError:
        return PipelineTask(name=name, inputs=tuple(map(_column, columns)), any_parameter=True)
    known = PLAIN_TASKS.get(known.name, known)
    if not isinstance(known, PipelineTask):
        known = PipelineTask(name=name, inputs=known.inputs)
    # Its parameters may mean something else to the user's pipeline.
    known = replace(known, parameters={}, checks=_anything, suits=_anything, sample=None)
    beside = set(columns) - {column.name for column in known.inputs}
    more = (Column(name=own, kind="any", required=False, parameter=True) for own in sorted(beside))
    return replace(known, inputs=(*known.inputs, *more), any_parameter=True)


def row_parameters(declared: PipelineTask, pipeline: Any) -> set[str]:
    """Columns that are arguments by name of one of the pipeline's functions.

    Not the first of a known task, nor of those that would all be: it is what the pipeline reads.
    """
    if not declared.any_parameter:
        return set()
    names = [column.name for column in declared.inputs]
    own = {argument.name for argument in _arguments(pipeline)} & set(names)
    return own - set(names[:1]) if declared.inputs[0].required or len(own) == len(names) else own


def check_parameters(given: Mapping[str, Any], columns: set[str], pipeline: Any) -> None:
    """Raises ValueError for a parameter that the pipeline does not know.

    Most take any name and read the ones they know, so a misspelt one would go unnoticed.

    given: parameters with their values.
    columns: those that each row has of its own.
    """
    arguments = _arguments(pipeline)
    if any(argument.kind is argument.VAR_KEYWORD for argument in arguments):
        return
    named = {argument.name for argument in arguments} | _names_read(type(pipeline))
    for name, value in {**dict.fromkeys(columns, ""), **given}.items():
        if name not in named and not _has_effect(name, value, pipeline):
            kind = "input.columns" if name in columns else "parameters"
            raise ValueError(
                f"{type(pipeline).__name__} knows no parameter {name!r} ({kind}): no argument of "
                "preprocess, _forward or postprocess is called so, nor does it read that name"
            )


def _arguments(pipeline: Any) -> list[inspect.Parameter]:
    """What the three functions take beside their inputs."""
    steps = (pipeline.preprocess, pipeline._forward, pipeline.postprocess)
    return [a for step in steps for a in list(inspect.signature(step).parameters.values())[1:]]


def _names_read(kind: type) -> set[str]:
    """The arguments of `_sanitize_parameters`, and the texts in its code: kwargs["name"]."""
    codes = [
        vars(base)["_sanitize_parameters"].__code__
        for base in kind.__mro__
        if hasattr(vars(base).get("_sanitize_parameters"), "__code__")
    ]
    texts = {text for code in codes for text in code.co_consts if isinstance(text, str)}
    return texts.union(*(code.co_varnames for code in codes))


def _has_effect(name: str, value: Any, pipeline: Any) -> bool:
    try:
        return bool(
            pipeline._sanitize_parameters(**{name: value}) != pipeline._sanitize_parameters()
        )
    except Exception:  # it has an opinion, which it will say itself
        return True


def _anything(*_: Any) -> None:
    """Find nothing wrong."""


def _column(name: str) -> Column:
    return Column(name=name, kind=name if name in KINDS else "any", required=False)
