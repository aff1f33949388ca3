"""Parameters of a pipeline that the user brings: its functions show which it takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ...pipeline_task import PipelineTask


def list_row_parameters(declared: PipelineTask, pipeline: Any) -> set[str]:
    """Return the columns that are arguments by name of one of the pipeline's functions.

    Not the first column of a known task, and none where all columns would be such arguments: that
    is what the pipeline reads.
    """
    if not declared.any_parameter:
        return set()
    names = [column.name for column in declared.inputs]
    own = {argument.name for argument in _list_arguments(pipeline)} & set(names)
    return own - set(names[:1]) if declared.inputs[0].required or len(own) == len(names) else own


def check_parameters(given: Mapping[str, Any], columns: set[str], pipeline: Any) -> None:
    """Raise ValueError for a parameter that the pipeline does not know.

    Most take any name and read the ones they know, so a misspelt one would go unnoticed.

    Args:
        given: parameters with their values.
        columns: the parameters that each row has as a column.
        pipeline: the loaded pipeline.
    """
    arguments = _list_arguments(pipeline)
    if any(argument.kind is argument.VAR_KEYWORD for argument in arguments):
        return
    named = {argument.name for argument in arguments} | names_read(type(pipeline))
    for name, value in {**dict.fromkeys(columns, ""), **given}.items():
        if name not in named and not _has_effect(name, value, pipeline):
            place = "input.columns" if name in columns else "parameters"
            raise ValueError(
                f"{type(pipeline).__name__} knows no parameter {name!r} ({place}): preprocess, "
                "_forward and postprocess have no argument of that name, and "
                "_sanitize_parameters does not read it"
            )


def names_read(pipeline_class: type) -> set[str]:
    """Return the arguments of `_sanitize_parameters`, and the texts in its code: kwargs["name"]."""
    codes = [
        vars(base)["_sanitize_parameters"].__code__
        for base in pipeline_class.__mro__
        if hasattr(vars(base).get("_sanitize_parameters"), "__code__")
    ]
    texts = {text for code in codes for text in code.co_consts if isinstance(text, str)}
    return texts.union(*(code.co_varnames for code in codes))


def _list_arguments(pipeline: Any) -> list[inspect.Parameter]:
    """Return what the three functions take beside their inputs."""
    steps = (pipeline.preprocess, pipeline._forward, pipeline.postprocess)
    return [a for step in steps for a in list(inspect.signature(step).parameters.values())[1:]]


def _has_effect(name: str, value: Any, pipeline: Any) -> bool:
    try:
        return bool(
            pipeline._sanitize_parameters(**{name: value}) != pipeline._sanitize_parameters()
        )
    except Exception:  # it knows the parameter, and will say itself what is wrong
        return True
