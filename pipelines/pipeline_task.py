"""A task declared as data: what it reads, its parameters, and how an answer becomes columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pipemill.actors.task import Loaded, LoadedTask

from .task_spec import TaskSpec, Values, check_nothing

if TYPE_CHECKING:
    from .adapter.pipeline_adapter import PipelineAdapter
    from .engines.base import GenerationEngine

Record = Callable[[Any, Values], Values]
Postprocess = Callable[..., Any]
Shorten = Callable[[str, Any, Mapping[str, Any], int | None], tuple[str, int]]


def one_or_all(values: Values, pipeline: Any) -> Any:
    """Return the value of a task that reads one column, and else a dict by name."""
    return next(iter(values.values())) if len(values) == 1 else values


@dataclass(frozen=True, kw_only=True)
class PipelineTask(TaskSpec):
    """Any transformers pipeline as a task. It is data only; `make_task` makes it run.

    Attributes:
        results: returns the columns that the task adds. None for a task whose answers' types only
            a sample shows: it then adds the one column `result`.
        record: from one row's answer, as `transformers.pipeline` returns it, and the row's values
            (its columns over the parameters), to those columns.
        prepare: from the row's values without parameters, and the pipeline, to what that
            pipeline's `preprocess` takes.
        own_parameters: parameters that the functions here read, and transformers does not know.
        defaults: parameters that pipemill gives where the user gave none.
        to_pipeline_parameters: from the user's parameters to those of the pipeline.
        batchable: whether several chunks may be tried in one forward pass.
        token_outputs: the names of the model's outputs, where it is called once for a chunk, with
            what the tokenizer made of it, and has one output for every token.
        reads_tokens: which of these outputs the pipeline reads: "all" or those of the "masks".
        written: of a task that writes text, the name of the ids that `_forward` returns; empty if
            it returns nothing else. What is not `batchable` is written by the model as it is only.
        generation: from the pipeline to what writes the texts of several rows at once, where that
            does not follow from `written`; to None for a model that must write them one by one.
        truncated_column: a column of texts that the pipeline may truncate: the tokens that this
            costs are counted.
        shorten: from a row's text, the pipeline, the keywords of its `preprocess` and the number of
            positions that the model has (None for any) to the part of the text that is read, and by
            how many tokens it is shorter.
        postprocess: from the pipeline, what its `_forward` returns for a row (a list, if it makes
            several chunks of a row), and the keywords of its `postprocess` to what that returns,
            sooner. The first answers are compared.
        speed_up: returns a task with the same answers for many rows at once, from the task with
            its pipeline; None where that does not suit the pipeline or the job.
        set_up: changes the loaded pipeline as the parameters say, before it is looked at. Raises
            ValueError for what it can't become.
        suits: raises ValueError for values that the loaded pipeline (its model, its tokenizer)
            can't take. It gets the same values as `checks`.
        sample: from the pipeline and its parameters to a short input. If only the user's
            parameters make it fail, they are wrong.
    """

    adds: str = "result: the pipeline's answer, of a type inferred from a sample"
    results: Callable[[Loaded], pa.Schema] | None = None
    record: Record = lambda answer, values: {"result": answer}
    prepare: Callable[[Values, Any], Any] = one_or_all
    own_parameters: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    to_pipeline_parameters: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    batchable: bool = True
    token_outputs: tuple[str, ...] = ()
    reads_tokens: Literal["all", "masks"] = "all"
    written: str | None = None
    generation: Callable[[Any], GenerationEngine | None] = lambda pipeline: None
    truncated_column: str | None = None
    shorten: Shorten = lambda text, pipeline, before, limit: (text, 0)
    postprocess: Postprocess | None = None
    speed_up: Callable[[PipelineAdapter], LoadedTask | None] = lambda adapter: None
    set_up: Callable[[Any, Mapping[str, Any]], None] = lambda pipeline, parameters: None
    suits: Callable[[Values, Any], None] = check_nothing
    sample: Callable[[Any, Values], Any] | None = None

    @property
    def infers_columns(self) -> bool:
        """Whether only a sample of answers shows the types of the columns that the task adds."""
        return self.results is None

    @property
    def declared(self) -> PipelineTask:
        """The task itself: plain transformers does it."""
        return self

    def row_parameters(self) -> set[str]:
        """Return the parameters that a column may give for each row, and the pipeline takes."""
        return {c.name for c in self.inputs if c.parameter} - set(self.own_parameters)


def fixed(**columns: pa.DataType) -> Callable[[Loaded], pa.Schema]:
    """Return the `results` of a task that always adds the same columns."""
    schema = pa.schema(list(columns.items()))
    return lambda loaded: schema
