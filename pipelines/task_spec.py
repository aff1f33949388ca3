"""What is known of a task before anything is loaded: the driver works with this alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipemill.actors.task import Column, Followed, Loaded, LoadedTask, Parameter

if TYPE_CHECKING:
    from .pipeline_task import PipelineTask
    from .plain_form import PlainForm

Values = dict[str, Any]
ReadJson = Callable[[str], Any]
InferParameter = Callable[[Mapping[str, list[Any]], Path], Any]


def check_nothing(*_: Any) -> None:
    """Accept any values."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A task as the driver knows it. Declared tasks (`PipelineTask`) are specs that say more.

    Attributes:
        name: the Hugging Face name of the task.
        inputs: the columns that it reads.
        parameters: the parameters that it takes, by name.
        adds: the columns that it adds, in words.
        one_of: columns of which the input must have at least one.
        checks: raises ValueError for values that don't go together. It gets all parameters of the
            job, with defaults; of a declared task also those of every row that has its own.
        files: returns the JSON files of the model's folder that say how the model is used, by
            name. Its argument gives the content of a file, or None.
        follow: returns what the task does because these files say so. Takes the parameters and
            the files; raises ValueError for what can't be followed.
        infer_parameters: parameters that some rows decide for all rows of the job, where the user
            gave none; each with a function from those rows' values, by column, and the model's
            folder.
        expands_with_model: whether making chunks of a row needs the model's weights.
        any_parameter: whether only the pipeline knows its parameters.
        wants_float32: whether the task fails with a model in bfloat16.
        repeats: whether equal inputs always have equal answers, and are computed once; None if
            the pipeline's class says so (an attribute `repeats`), or else what such pipelines do.
        libraries: modules that the task imports for a row.
        pipeline_class: "package.module:Class", where transformers has no pipeline of that name.
        plain: how plain transformers does the task, where pipemill computes it in another way.
        make: makes the task from what was loaded; None for a declared task.
    """

    name: str
    inputs: tuple[Column, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    adds: str = ""
    one_of: tuple[str, ...] = ()
    checks: Callable[[Values], None] = check_nothing
    files: Callable[[ReadJson], dict[str, Any]] = lambda read: {}
    follow: Callable[[Mapping[str, Any], Mapping[str, Any]], Followed] = lambda *_: Followed()
    infer_parameters: Mapping[str, InferParameter] = field(default_factory=dict)
    expands_with_model: bool = False
    any_parameter: bool = False
    wants_float32: bool = False
    repeats: bool | None = None
    libraries: tuple[str, ...] = ()
    pipeline_class: str | None = None
    plain: PlainForm | None = None
    make: Callable[[Loaded], LoadedTask] | None = None

    @property
    def infers_columns(self) -> bool:
        """Whether only a sample of answers shows the types of the columns that the task adds."""
        return False

    @property
    def declared(self) -> PipelineTask | None:
        """The task as one that plain transformers does; None where there is no such task."""
        return None if self.plain is None else self.plain.declared

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise ValueError for parameters that don't go together; each alone is checked before."""
        self.checks(dict(parameters))

    def with_defaults(self, given: Mapping[str, Any]) -> Values:
        """Return all parameters: the given ones over the defaults."""
        return {**{name: p.default for name, p in self.parameters.items()}, **given}


def as_spec(task: Any) -> TaskSpec:
    """Return the spec of a task: a spec itself, or a class with the attributes of `Task`."""
    if isinstance(task, TaskSpec):
        return task
    known = {
        f.name: getattr(task, f.name)
        for f in fields(TaskSpec)
        if hasattr(task, f.name) and not isinstance(getattr(task, f.name), property)
    }
    return TaskSpec(**{"checks": task.check, "make": task, **known})
