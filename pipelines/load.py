"""From a task's name and a model to the stages that a worker runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from pipemill.actors.model import Model
from pipemill.actors.stages import Stages
from pipemill.actors.task import Loaded

from .media import MediaAccess
from .own_pipeline import own_pipeline
from .registry import find_task
from .restored import restore_pipelines

# The most padded tokens in a micro-batch where the job names none: on a CPU as many as its
# caches hold, on a GPU enough to fill it.
_DEFAULT_BUDGET = {"cpu": 2048}
_ACCELERATOR_BUDGET = 16384


@dataclass(frozen=True, kw_only=True)
class LoadTask:
    """Everything that a worker needs to load a task; travels to it, and loads when called.

    columns: (the task's column, the user's column) pairs.
    parameters: the task's parameters, as JSON, so that equal ones compare equal.
    max_tokens: the budget of a micro-batch; None for the device's default.
    weights: False for workers that only tokenize and shape answers.
    own: whether the pipeline is the user's.
    schema: the columns it adds, if they are declared or were seen in a sample.
    """

    task: str
    model: Model
    columns: tuple[tuple[str, str], ...]
    parameters: str = "{}"
    max_tokens: int | None = None
    weights: bool = True
    own: bool = False
    schema: bytes | None = None
    media: MediaAccess = field(default_factory=MediaAccess)

    def __call__(self) -> Stages:
        restore_pipelines()
        kind = self.kind()
        # A pipeline of which nothing is known may need its weights anywhere.
        whole = self.weights or self.own
        model = self.model
        if model.pipeline_class is None and (own_class := getattr(kind, "pipeline_class", None)):
            model = replace(model, pipeline_class=own_class)
        load = model.load if whole else model.load_without_weights
        pipeline = load(kind.name)
        loaded = Loaded(
            pipeline=pipeline,
            parameters=json.loads(self.parameters),
            columns=tuple(name for name, _ in self.columns),
            media=self.media,
            schema=None if self.schema is None else pa.ipc.read_schema(pa.py_buffer(self.schema)),
        )
        budget = self.max_tokens or _DEFAULT_BUDGET.get(pipeline.device.type, _ACCELERATOR_BUDGET)
        return Stages(kind(loaded), dict(self.columns), budget)

    def kind(self) -> Any:
        """The task, not loaded."""
        if self.own:
            return own_pipeline(self.task, tuple(name for name, _ in self.columns))
        return find_task(self.task)
