"""Find the task that a job names, and whether the pipeline that does it is the user's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipemill.actors.compute.row_condition import RowCondition
from pipemill.actors.sources.reading import Reading
from pipemill.actors.task import Column, Followed, Parameter
from pipemill.pipelines.embeddings.static_folder import find_static_folder
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.registry import find_registered, find_task, is_transformers_task
from pipemill.pipelines.task_columns import USUAL, list_inputs, map_source_names
from pipemill.pipelines.task_spec import TaskSpec
from pipemill.pipelines.user_pipeline import user_pipeline_task
from pydantic import BaseModel

from pipemill.errors import ConfigError

from ..config.arrow_types import parse_schema
from ..config.key_hints import hint_parameter
from .choose_engine import check_engine, computes_on_cpu
from .user_code import check_class, check_registered, has_remote_pipeline

if TYPE_CHECKING:
    from ..config.job import Job
    from ..config.task_entry import TaskEntry

# A user's pipeline is given text from these, even if the values seem to be something else.
_TEXTS = ("inputs", "text")


@dataclass(frozen=True, kw_only=True)
class ResolvedTask:
    """What computes the rows of a job: its task and model, resolved once and passed on.

    Attributes:
        spec: the task.
        is_user: whether its pipeline is user code: a class, or code in the model folder.
        model: its files, as a worker loads them.
        files: JSON files of the model folder that say how the model is used, by name.
        followed: what the task does because of these files.
        steps: the tasks of a job that has several, this one first.
    """

    spec: TaskSpec
    is_user: bool
    model: ModelFiles
    files: Mapping[str, Any] = field(default_factory=dict)
    followed: Followed = field(default_factory=Followed)
    steps: tuple[ResolvedStep, ...] = ()

    @property
    def is_static(self) -> bool:
        """Whether the model, or each of several, is static embeddings, which need no torch."""
        if self.steps:
            return all(step.task.is_static for step in self.steps)
        return not self.is_user and find_static_folder(self.files) is not None


@dataclass(frozen=True, kw_only=True)
class ResolvedStep:
    """One task of a job that has several.

    Attributes:
        entry: what the job says about it.
        job: the job as if it had this task alone.
        task: its task and model.
        digest: of the model's files; empty until it is computed.
    """

    entry: TaskEntry
    job: Job
    task: ResolvedTask
    digest: str = ""

    @property
    def condition(self) -> RowCondition | None:
        return None if self.entry.where is None else RowCondition(self.entry.where)


def list_tasks(job: Job, task: ResolvedTask) -> list[tuple[Job, ResolvedTask]]:
    """Return each task with the job as if it had that task alone."""
    return [(step.job, step.task) for step in task.steps] or [(job, task)]


def resolve_task(job: Job, model: ModelFiles) -> ResolvedTask:
    """Return the task of a job; what the model's folder says is added by `follow_conventions`.

    Its pipeline is the user's if it is a class (`pipeline_class`), or code in the model's folder.

    Args:
        job: the job.
        model: the files that a worker loads.

    Raises:
        ConfigError: there is no such task, engine or class, or a parameter is wrong.
    """
    own = has_remote_pipeline(job, model.path)
    if job.pipeline_class is not None:
        check_class(job.pipeline_class)
        own = True
    spec = None if own else _find_task(job.task)
    own = spec is None
    if spec is not None and (location := find_registered(spec.name)) is not None:
        check_registered(spec.name, location)
    if spec is None:
        spec = user_pipeline_task(job.task, _list_named_columns(job))
    _check_parameters(job, spec)
    check_engine(job, spec, own)
    if job.output.schema is not None and not own and not spec.infers_columns:
        raise ConfigError(
            "output.schema declares the columns of your own pipeline (pipeline_class), and the "
            f"columns of {spec.name} are known: pipemill tasks {spec.name}"
        )
    return ResolvedTask(spec=spec, is_user=own, model=model)


def with_steps(job: Job, tasks: Sequence[ResolvedTask]) -> ResolvedTask:
    """Return the first task, with all of them as its steps if the job has several.

    Raises:
        ConfigError: a task can't be one of several.
    """
    if not job.tasks:
        return tasks[0]
    steps = []
    for entry, one, task in zip(job.tasks, job.each_task(), tasks, strict=True):
        if task.is_user or task.spec.infers_columns:
            raise ConfigError(
                f"only a sample of answers shows which columns {entry.label} adds: run it as the "
                "only task of a job"
            )
        if job.actors.placement == "staged":
            raise ConfigError(
                "several tasks run in one actor: actors.placement can't be staged, leave it out"
            )
        if computes_on_cpu(one, task):
            actors = one.actors.model_copy(update={"num_gpus": 0.0})
            one = one.model_copy(update={"actors": actors})
        steps.append(ResolvedStep(entry=entry, job=one, task=task))
    return replace(tasks[0], steps=tuple(steps))


def select_parameters(job: Job, spec: TaskSpec) -> dict[str, Any]:
    """Return the job's parameters, as its task takes them."""
    return validate_parameters(job.parameters, spec, type(job))


def validate_parameters(
    given: dict[str, Any], spec: TaskSpec, job: type[BaseModel]
) -> dict[str, Any]:
    """Return parameters as the task takes them.

    Null leaves the default, unless it is a value of the parameter. A name that is unknown may be
    a key of `job`.
    """
    if spec.any_parameter:
        return given  # the user's pipeline knows its own, and is asked when it is loaded
    taken = {}
    for name, value in given.items():
        if name not in spec.parameters:
            hint = hint_parameter(name, spec, job)
            raise ConfigError(f"{spec.name} has no parameter {name!r}; {hint}")
        if value is None and not spec.parameters[name].nullable:
            continue
        try:
            taken[name] = spec.parameters[name].validate(name, value)
        except ValueError as error:
            advice = ": put it in quotes" if _lacks_quotes(spec.parameters[name], value) else ""
            raise ConfigError(f"parameters of {spec.name}: {error}{advice}") from None
    return taken


def _lacks_quotes(parameter: Parameter, value: Any) -> bool:
    """Tell whether YAML did not read a value, such as no and 2024, as the text that is wanted."""
    if parameter.each is not None and isinstance(value, list | tuple):
        return any(_lacks_quotes(parameter.each, one) for one in value)
    if parameter.keys is not None and isinstance(value, dict):
        known = parameter.keys
        return any(_lacks_quotes(known[key], one) for key, one in value.items() if key in known)
    takes_text = "str" in parameter.kind.split("|") and not parameter.choices
    return takes_text and isinstance(value, bool | int | float)


def list_column_kinds(
    spec: TaskSpec, parameters: Mapping[str, Any], mapping: Mapping[str, str | None]
) -> dict[str, str]:
    """Return the input's columns that a task may read, each with the kind of its values."""
    inputs = list_inputs(spec, parameters) or tuple(Column(name=n, kind="any") for n in USUAL)
    read = {column.name: column for column in inputs if column.name not in parameters}
    names = map_source_names(read.values(), mapping)
    return {own: _find_kind(read[name]) for name, own in names.items()}


def _find_task(name: str) -> TaskSpec | None:
    """Return the task of that name; None for one that only transformers knows."""
    try:
        return find_task(name)
    except LookupError as error:
        if not is_transformers_task(name):
            raise ConfigError(str(error.args[0])) from None
    return None


def _list_named_columns(job: Job) -> tuple[str, ...]:
    return tuple(name for name, column in job.input.columns.items() if column is not None)


def _find_kind(column: Column) -> str:
    return "text" if column.kind == "any" and column.name in _TEXTS else column.kind


def _check_parameters(job: Job, spec: TaskSpec) -> None:
    given = select_parameters(job, spec)
    for name, value in given.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"parameters of {spec.name}: {name}: {error}") from None
    try:
        spec.check(spec.with_defaults(given))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"parameters of {spec.name}: {error}") from None


def find_reading(job: Job, task: ResolvedTask) -> Reading:
    """Return how the values of the input are to be read."""
    types = parse_schema(job.input.schema, "input.schema") if job.input.schema is not None else []
    kinds: dict[str, str] = {}
    for one, own in list_tasks(job, task):
        parameters = select_parameters(one, own.spec)
        for name, kind in list_column_kinds(own.spec, parameters, one.input.columns).items():
            # A text is read as one, even if another task would take any value.
            if kinds.get(name, "any") == "any":
                kinds[name] = kind
    return Reading(
        kinds=kinds,
        types={field.name: field.type for field in types},
        encoding=job.input.encoding,
        delimiter=job.input.delimiter,
        quotes=job.input.quotes,
    )
