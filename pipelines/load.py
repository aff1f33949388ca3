"""From a task's name and a model to the stages that a worker runs."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipemill.actors.model import Model
from pipemill.actors.stages import Stages

from .registry import find_task

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
    """

    task: str
    model: Model
    columns: tuple[tuple[str, str], ...]
    parameters: str = "{}"
    max_tokens: int | None = None
    weights: bool = True

    def __call__(self) -> Stages:
        kind = find_task(self.task)
        load = self.model.load if self.weights else self.model.load_without_weights
        pipeline = load(kind.name)
        budget = self.max_tokens or _DEFAULT_BUDGET.get(pipeline.device.type, _ACCELERATOR_BUDGET)
        return Stages(kind(pipeline, json.loads(self.parameters)), dict(self.columns), budget)
