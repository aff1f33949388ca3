"""A task declared as data: what it reads, its parameters, and how an answer becomes columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from .adapter.row_values import own_value_error

if TYPE_CHECKING:
    from .adapter.pipeline_adapter import PipelineAdapter

Values = dict[str, Any]
Record = Callable[[Any, Values], Values]
Shorten = Callable[[str, Any, Mapping[str, Any]], tuple[str, int]]
Settle = Callable[[Mapping[str, list[Any]], Path], Any]


def one_or_all(values: Values, pipeline: Any) -> Any:
    """A task that reads one column gives its pipeline the value, others a dict by name."""
    return next(iter(values.values())) if len(values) == 1 else values


@dataclass(frozen=True, kw_only=True)
class PipelineTask:
    """Any transformers pipeline as a task; call it with what was loaded to have it run.

    results: the columns it adds. None for a task whose answers' types only a sample shows: it
        then adds the one column `result`.
    record: from one row's answer, as `transformers.pipeline` returns it, and the row's values
        (its columns over the parameters), to those columns.
    prepare: from the row's values but for parameters, and the pipeline, to what that pipeline's
        `preprocess` takes.
    ours: parameters that the functions above read, and that transformers does not know.
    defaults: parameters that pipemill gives where the user gave none.
    given: from the user's parameters to those of the pipeline.
    one_of: columns of which the input must have at least one.
    stacks: whether several chunks may be tried in one forward pass.
    token_outputs: the model's outputs, where it is called once for a chunk, with what the tokenizer
        made of it, and has one for every token.
    reads: which of them the pipeline reads: "all" or those of the "masks".
    written: of a task that writes text from text, the name of the ids that `_forward` returns.
    settle: parameters that, where the user gave none, some rows settle for all rows of the job;
        each with a function from those rows' values by column and the model's folder to its value.
    cuts: a column of texts that the pipeline may truncate: what that costs is counted.
    shorten: from a row's text, the pipeline and the keywords of its `preprocess` to the part of the
        text that is read, and how many tokens it has less.
    expands_with_model: whether `preprocess` already needs the model's weights.
    checks: raises ValueError for values that don't go together; gets all, with defaults, of the job
        and of every row that has its own.
    suits: the same for values that the loaded pipeline can't take: its model, its tokenizer.
    sample: from the pipeline and its parameters to a short input; where it fails with the user's
        parameters only, they are wrong.
    repeats: whether equal inputs always have equal answers, and are computed once; None for what
        the pipeline's class says (an attribute `repeats`), or else what its kind lets expect.
    any_parameter: whether only the pipeline knows its parameters.
    wants_float32: whether its pipeline fails with a model in bfloat16.
    libraries: modules that its pipeline imports for a row; without them every row would fail.
    pipeline_class: "package.module:Class", where transformers has no pipeline of that name.
    adds: the columns it adds, for a reader.
    """

    name: str
    inputs: tuple[Column, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    results: Callable[[Loaded], pa.Schema] | None = None
    record: Record = lambda answer, values: {"result": answer}
    prepare: Callable[[Values, Any], Any] = one_or_all
    ours: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    given: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    one_of: tuple[str, ...] = ()
    settle: Mapping[str, Settle] = field(default_factory=dict)
    cuts: str | None = None
    shorten: Shorten = lambda text, pipeline, before: (text, 0)
    stacks: bool = True
    token_outputs: tuple[str, ...] = ()
    reads: str = "all"
    written: str | None = None
    expands_with_model: bool = False
    checks: Callable[[Values], None] = lambda values: None
    suits: Callable[[Values, Any], None] = lambda values, pipeline: None
    sample: Callable[[Any, Values], Any] | None = None
    repeats: bool | None = None
    any_parameter: bool = False
    wants_float32: bool = False
    libraries: tuple[str, ...] = ()
    pipeline_class: str | None = None
    adds: str = "result: the pipeline's answer, of a type inferred from a sample"

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Each value alone is checked by its `Parameter`."""
        self.checks(dict(parameters))

    def check_loaded(self, given: Mapping[str, Any], pipeline: Any) -> None:
        """Raises ValueError for parameters that the pipeline can't take."""
        self.suits({**{name: p.default for name, p in self.parameters.items()}, **given}, pipeline)

    def check_row(self, own: Values, given: Mapping[str, Any], pipeline: Any) -> None:
        """Raises ValueError for parameters of a row's own; given: those of the job."""
        try:
            for name, value in own.items():
                if name in self.parameters:
                    self.parameters[name].validate(name, value)
            values = {**{name: p.default for name, p in self.parameters.items()}, **given, **own}
            self.checks(values)
            self.suits(values, pipeline)
        except ValueError as error:
            raise own_value_error(error, own) from None

    def __call__(self, loaded: Loaded) -> PipelineAdapter:
        from .adapter.pipeline_adapter import PipelineAdapter

        return PipelineAdapter(self, loaded)

    def own_parameters(self) -> set[str]:
        """Parameters that a column may give for each row, and that go to the pipeline."""
        return {c.name for c in self.inputs if c.parameter} - set(self.ours)


def fixed(**columns: pa.DataType) -> Callable[[Loaded], pa.Schema]:
    """`results` of a task that always adds the same columns."""
    schema = pa.schema(list(columns.items()))
    return lambda loaded: schema
