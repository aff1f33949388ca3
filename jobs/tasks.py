"""Which task a job names, and whether the pipeline that does it is the user's own."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from pipemill.pipelines.registry import find_task, own_pipeline, transformers_knows

from .errors import ConfigError, nearest
from .job import Job

# A column that an unknown pipeline is given, where the user names none.
_USUAL = ("inputs", "text", "image", "audio", "video", "messages")


def wanted_task(job: Job, model: str) -> tuple[Any, bool]:
    """The task, and whether its pipeline is the user's: a class, or code in the model's folder."""
    own = job.pipeline_class is not None or _in_model(job, model)
    if job.pipeline_class is not None:
        _check_class(job.pipeline_class)
    try:
        kind = None if own else find_task(job.task)
    except LookupError as error:
        if not transformers_knows(job.task):
            raise ConfigError(str(error.args[0])) from None
        own = True
    kind = kind if not own else own_pipeline(job.task, tuple(job.input.columns))
    _check_parameters(job, kind)
    return kind, own


def with_inputs(kind: Any, schema: pa.Schema) -> Any:
    """The task with the column that an unknown pipeline is given, if none was named."""
    if kind.inputs:
        return kind
    usual = [name for name in _USUAL if name in schema.names]
    names = usual[:1] or (schema.names if len(schema.names) == 1 else [])
    if not names:
        raise ConfigError(
            f"which column goes into the pipeline of {kind.name}? Name it with --column "
            f"NAME=COLUMN (input.columns); columns: {', '.join(schema.names)}"
        )
    return own_pipeline(kind.name, tuple(names))


def _check_parameters(job: Job, kind: Any) -> None:
    known = {} if getattr(kind, "any_parameter", False) else kind.parameters
    for name, value in job.parameters.items() if known or kind.parameters == known else ():
        if name not in known:
            hint = nearest(name, known) if known else "it takes none"
            raise ConfigError(f"{kind.name} has no parameter {name!r}; {hint}")
        try:
            known[name].check(name, value)
        except ValueError as error:
            raise ConfigError(f"parameters of {kind.name}: {error}") from None
    try:
        json.dumps(job.parameters)
        kind.check({**{name: p.default for name, p in kind.parameters.items()}, **job.parameters})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"parameters of {kind.name}: {error}") from None


def _in_model(job: Job, model: str) -> bool:
    """Whether the model's folder brings a pipeline of its own for the task."""
    config = Path(model) / "config.json"
    if not config.is_file():
        return False
    try:
        own = json.loads(config.read_text(encoding="utf-8")).get("custom_pipelines") or {}
    except ValueError as error:
        raise ConfigError(f"{config} is not JSON: {error}") from None
    if job.task not in own:
        return False
    if not job.model.trust_remote_code:
        raise ConfigError(
            f"the model {job.model.path} does {job.task} by code of its own "
            f"({own[job.task].get('impl')}): read that code, and set model.trust_remote_code to "
            "true to run it"
        )
    return True


def _check_class(name: str) -> None:
    """Raises ConfigError if no such module is to be found; importing it is a worker's work."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute.isidentifier()):
        raise ConfigError(f"pipeline_class is package.module:Class, not {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ConfigError(
            f"pipeline_class {name!r}: there is no module {module!r}, neither installed nor in "
            f"{os.getcwd()}"
        )
