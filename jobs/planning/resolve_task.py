"""Which task a job names, and whether the pipeline that does it is the user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Followed
from pipemill.pipelines.registry import find_task, is_transformers_task
from pipemill.pipelines.user_pipeline import user_pipeline_task

from pipemill.errors import ConfigError, did_you_mean

from ..config.job import Job
from ..output.job_record import JobRecord
from .columns import source_names
from .user_code import check_class, has_remote_pipeline

# A column that an unknown pipeline is given, where the user names none.
USUAL = ("inputs", "text", "image", "audio", "video", "messages")
# Of these a pipeline of the user's is given text, of whatever else what the values seem to be.
_TEXTS = ("inputs", "text")


@dataclass(frozen=True, kw_only=True)
class ResolvedTask:
    """What computes the rows of a job: its task and model, resolved once and passed on.

    Attributes:
        spec: the task.
        is_user: whether its pipeline is user code: a class, or code in the model folder.
        path, revision: of the model, as a worker loads it.
        files: JSON files of the model folder that say how the model is used, by name.
        followed: what the task does because of these files.
    """

    spec: Any
    is_user: bool
    path: str
    revision: str | None = None
    files: Mapping[str, Any] = field(default_factory=dict)
    followed: Followed = field(default_factory=Followed)

    @property
    def model(self) -> tuple[str, str | None]:
        return self.path, self.revision


def resolve_job_task(job: Job, model: tuple[str, str | None]) -> ResolvedTask:
    """Find the task of a job; `model_conventions` reads the files. Raises ConfigError.

    Args:
        model: the path and revision that a worker loads.
    """
    spec, is_user = resolve_task(job, model[0])
    return ResolvedTask(spec=spec, is_user=is_user, path=model[0], revision=model[1])


def resolve_task(job: Job, model: str) -> tuple[Any, bool]:
    """The task, and whether its pipeline is the user's: a class, or code in the model's folder."""
    own = has_remote_pipeline(job, model)
    if job.pipeline_class is not None:
        check_class(job.pipeline_class)
        own = True
    kind: Any = None
    try:
        kind = None if own else find_task(job.task)
    except LookupError as error:
        if not is_transformers_task(job.task):
            raise ConfigError(str(error.args[0])) from None
        own = True
    kind = user_pipeline_task(job.task, _named_columns(job)) if own else kind
    _check_parameters(job, kind)
    if job.output.schema is not None and not own and kind.results is not None:
        raise ConfigError(
            f"output.schema declares the columns of a pipeline of your own (pipeline_class); "
            f"{kind.name} knows its columns: pipemill tasks {kind.name}"
        )
    return kind, own


def _named_columns(job: Job) -> tuple[str, ...]:
    return tuple(name for name, column in job.input.columns.items() if column is not None)


def choose_dtype(job: Job, kind: Any, own: bool, record: JobRecord | None = None) -> str:
    """What the job says; where it says "auto", bfloat16 on a GPU, and on a CPU as saved.

    A pipeline of the user's, and one that can't compute in bfloat16, is left as saved there, too.

    record: of an output that has parts: what was chosen for these holds, whatever the device is
        now.
    """
    if job.model.dtype != "auto":
        return job.model.dtype
    then = None if record is None else record.decides.get("model.dtype")
    if then in ("auto", "bfloat16"):
        return str(then)
    if not job.actors.gpus_each:
        return "auto"
    return "auto" if own or getattr(kind, "wants_float32", False) else "bfloat16"


def with_inputs(kind: Any, schema: pa.Schema) -> Any:
    """The task with the column that an unknown pipeline is given, if none was named."""
    if kind.inputs:
        return kind
    usual = [name for name in USUAL if name in schema.names]
    names = usual[:1] or (schema.names if len(schema.names) == 1 else [])
    if not names:
        raise ConfigError(
            f"which column goes into the pipeline of {kind.name}? Name it with --column "
            f"NAME=COLUMN (input.columns); columns: {', '.join(schema.names)}"
        )
    return user_pipeline_task(kind.name, tuple(names))


def parameters_of(job: Job, kind: Any) -> dict[str, Any]:
    """The job's, as its task takes them."""
    return validate_parameters(job.parameters, kind)


def validate_parameters(given: dict[str, Any], kind: Any) -> dict[str, Any]:
    """As the task takes them; null, where it says nothing else, leaves the default."""
    if getattr(kind, "any_parameter", False):
        return given  # the user's pipeline knows its own, and is asked when it is loaded
    taken = {}
    for name, value in given.items():
        if name not in kind.parameters:
            hint = did_you_mean(name, kind.parameters) if kind.parameters else "it takes none"
            raise ConfigError(f"{kind.name} has no parameter {name!r}; {hint}")
        if value is None and not kind.parameters[name].nullable:
            continue
        try:
            taken[name] = kind.parameters[name].validate(name, value)
        except ValueError as error:
            raise ConfigError(f"parameters of {kind.name}: {error}") from None
    return taken


def inputs_of(kind: Any, parameters: Mapping[str, Any]) -> tuple[Column, ...]:
    """The task's columns; lists of words where the parameters say that texts are split already."""
    if not parameters.get("is_split_into_words") or getattr(kind, "any_parameter", False):
        return kind.inputs
    return tuple(replace(c, kind="words") if c.kind == "text" else c for c in kind.inputs)


def column_kinds(
    kind: Any, parameters: Mapping[str, Any], mapping: Mapping[str, str | None]
) -> dict[str, str]:
    """The columns that a task may read, each with the kind of its values."""
    inputs = inputs_of(kind, parameters) or tuple(Column(name=n, kind="any") for n in USUAL)
    read = {column.name: column for column in inputs if column.name not in parameters}
    names = source_names(read.values(), mapping)
    return {own: _kind(read[name]) for name, own in names.items()}


def _kind(column: Column) -> str:
    return "text" if column.kind == "any" and column.name in _TEXTS else column.kind


def _check_parameters(job: Job, kind: Any) -> None:
    given = parameters_of(job, kind)
    for name, value in given.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"parameters of {kind.name}: {name}: {error}") from None
    try:
        kind.check({**{name: p.default for name, p in kind.parameters.items()}, **given})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"parameters of {kind.name}: {error}") from None
