"""Which task a job names, and whether the pipeline that does it is the user's own."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from pipemill.pipelines.own_pipeline import own_pipeline
from pipemill.pipelines.registry import find_task, transformers_knows

from .errors import ConfigError, nearest
from .job import Job
from .own_code import check_class, model_brings

# A column that an unknown pipeline is given, where the user names none.
USUAL = ("inputs", "text", "image", "audio", "video", "messages")


def wanted_task(job: Job, model: str) -> tuple[Any, bool]:
    """The task, and whether its pipeline is the user's: a class, or code in the model's folder."""
    own = model_brings(job, model)
    if job.pipeline_class is not None:
        check_class(job.pipeline_class)
        own = True
    kind: Any = None
    try:
        kind = None if own else find_task(job.task)
    except LookupError as error:
        if not transformers_knows(job.task):
            raise ConfigError(str(error.args[0])) from None
        own = True
    kind = own_pipeline(job.task, tuple(job.input.columns)) if own else kind
    _check_parameters(job, kind)
    if job.output.schema is not None and not own and kind.results is not None:
        raise ConfigError(
            f"output.schema declares the columns of a pipeline of your own (pipeline_class); "
            f"{kind.name} knows its columns: pipemill tasks {kind.name}"
        )
    return kind, own


def wanted_dtype(job: Job, kind: Any, own: bool) -> str:
    """What the job says; where it says "auto", bfloat16 on a GPU, and on a CPU as saved.

    A pipeline of the user's, and one that can't compute in bfloat16, is left as saved there, too.
    """
    if job.model.dtype != "auto" or not job.actors.num_gpus:
        return job.model.dtype
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
    return own_pipeline(kind.name, tuple(names))


def _check_parameters(job: Job, kind: Any) -> None:
    # A pipeline of the user's knows its parameters itself, and is asked when it is loaded.
    checked = {} if getattr(kind, "any_parameter", False) else job.parameters
    for name, value in checked.items():
        if name not in kind.parameters:
            hint = nearest(name, kind.parameters) if kind.parameters else "it takes none"
            raise ConfigError(f"{kind.name} has no parameter {name!r}; {hint}")
        try:
            kind.parameters[name].check(name, value)
        except ValueError as error:
            raise ConfigError(f"parameters of {kind.name}: {error}") from None
    try:
        json.dumps(job.parameters)
        kind.check({**{name: p.default for name, p in kind.parameters.items()}, **job.parameters})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"parameters of {kind.name}: {error}") from None
