"""Load several tasks on a worker, to compute the same rows one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pipemill.actors.compute.cascade import Cascade, CascadeStep
from pipemill.actors.compute.row_condition import RowCondition
from pipemill.actors.compute.stages import Stages
from pipemill.actors.faults.load_errors import LoadError

from .loading.task_loader import LoadTask
from .text.shared_words import share_words


@dataclass(frozen=True, kw_only=True)
class LoadStep:
    """What a worker loads for one of several tasks; the other fields are those of `CascadeStep`.

    Attributes:
        where: the condition, as a text.
    """

    name: str
    prefix: str
    where: str | None
    load: LoadTask

    @property
    def condition(self) -> RowCondition | None:
        return None if self.where is None else RowCondition(self.where)


@dataclass(frozen=True, kw_only=True)
class LoadCascade:
    """All that a worker needs to load several tasks; it stands where the `LoadTask` of one does.

    Attributes:
        steps: the tasks, in their order.
        schema: the columns of the rows, serialized.
    """

    steps: tuple[LoadStep, ...]
    schema: bytes

    def __call__(self) -> Cascade:
        loaded = [
            CascadeStep(
                name=step.name,
                prefix=step.prefix,
                stages=_load(step),
                condition=step.condition,
            )
            for step in self.steps
        ]
        share_words(step.stages.task for step in loaded)
        try:
            return Cascade(loaded, pa.ipc.read_schema(pa.py_buffer(self.schema)))
        except ValueError as error:
            raise LoadError(str(error), for_good=True) from None

    @property
    def loads(self) -> tuple[LoadTask, ...]:
        """Return what loads each task."""
        return tuple(step.load for step in self.steps)

    @property
    def task(self) -> str:
        """Return the names of the tasks."""
        return " + ".join(step.name for step in self.steps)

    @property
    def max_tokens(self) -> int | None:
        """Return None if the budget of a task must be measured."""
        return min(load.max_tokens or 0 for load in self.loads) or None

    @property
    def writes_texts(self) -> bool:
        """Whether a task writes texts after prompts, of which each takes its own time."""
        return any(load.writes_texts for load in self.loads)

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names of the models."""
        return tuple(load.model.name for load in self.loads)

    def with_num_gpus(self, num_gpus: float) -> LoadCascade:
        """Return the same for another share of a GPU; a task on the CPU stays there."""
        return self._map(lambda one: one.with_num_gpus(num_gpus) if one.model.num_gpus else one)

    def with_changes(self, **changes: Any) -> LoadCascade:
        """Return the same with other fields of what loads each task."""
        return self._map(lambda load: load.with_changes(**changes))

    def _map(self, change: Callable[[LoadTask], LoadTask]) -> LoadCascade:
        steps = (replace(step, load=change(step.load)) for step in self.steps)
        return replace(self, steps=tuple(steps))


def _load(step: LoadStep) -> Stages:
    try:
        return step.load()
    except Exception as error:
        why = LoadError.of(error)
        raise LoadError(
            f"{step.name}: {why}", for_good=why.for_good, out_of_memory=why.out_of_memory
        ) from error
