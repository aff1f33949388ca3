"""A job: one task and model, or several of them, over one dataset, with one output."""

from __future__ import annotations

import codecs
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pipemill.actors.sources.registry import format_names
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)

from pipemill.errors import ConfigError, did_you_mean

from ..rows.find_rows import hold_rows, holds_rows
from ..rows.held_rows import HeldRows
from ..rows.lake_tables import FORMATS
from .key_errors import explain_errors
from .loaded_model import with_loaded_model
from .task_entry import (
    OF_ONE_TASK,
    AutoOrCount,
    BatchingSection,
    Count,
    FiniteCount,
    ModelSection,
    Number,
    Parameters,
    PathOrUrl,
    Section,
    TaskEntry,
    check_number,
    check_paths,
    with_first_task,
)


def _check_format(value: str) -> str:
    if value not in (names := ["auto", *format_names(), *FORMATS]):
        raise ValueError(f"no such format; {did_you_mean(value, names)}")
    return value


def _check_path_or_rows(value: Any, paths: Any) -> Any:
    return hold_rows(value) if holds_rows(value) else paths(value)


def _describe_path(value: Any) -> Any:
    if not isinstance(value, HeldRows):
        return value
    try:
        return value.describe()
    except ConfigError:  # rows that can't be stored, as the run will say
        return value.name


# Or a `HeldRows`, which the type leaves out: nearly all inputs are paths.
InputPath = Annotated[
    str | list[str],
    AfterValidator(check_paths),
    WrapValidator(_check_path_or_rows),
    PlainSerializer(_describe_path),
]


# pydantic has a deprecated method of that name. `schema` is the best name for the key, so it stays.
warnings.filterwarnings("ignore", message='Field name "schema" in "(In|Out)putSection"')


class InputSection(Section):
    """The rows to read.

    Attributes:
        path: files, folders, globs or URLs; in Python also an object that holds rows, such as a
            frame.
        format: a name in `actors/sources/registry.py`; "auto" takes it from the files' suffixes.
        columns: the data's column for each of the task's; null for one that the task must not
            read.
        limit: the most rows to read, from the start.
        schema: Arrow types of columns, by name ("int64"), instead of those in the data.
        encoding: the encoding of CSV, JSON and text files without a byte order mark; UTF-8 by
            default.
        delimiter: what stands between two fields of CSV; by default a tab in .tsv and .tab files,
            else a comma.
        quotes: whether double quotes enclose fields of CSV; false where they are plain characters,
            as in many TSV files.
        media_roots: folders and URLs below which paths and URLs in media columns are read; by
            default the folders of the input's files.
        storage_options: options for fsspec; never stored or shown.
    """

    path: InputPath
    format: Annotated[str, AfterValidator(_check_format)] = "auto"
    columns: dict[str, str | None] = Field(default={})
    limit: Annotated[int | None, BeforeValidator(check_number)] = Field(default=None, ge=1)
    schema: dict[str, str] | None = None  # type: ignore[assignment]
    encoding: str | None = None
    delimiter: str | None = None
    quotes: bool = True
    media_roots: list[str] | None = None
    storage_options: dict[str, Any] = Field(default={}, repr=False, exclude=True)

    @field_validator("delimiter")
    @classmethod
    def _is_a_delimiter(cls, value: str | None) -> str | None:
        value = "\t" if value == "\\t" else value
        if value is None or (len(value) == 1 and value.isascii() and value not in '"\r\n\0'):
            return value
        raise ValueError("must be one ASCII character in quotes, such as ';', '|' or '\\t'")

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            # Text is decoded piece by piece. Codecs such as "hex" do not decode to text.
            if isinstance(codecs.getincrementaldecoder(value)().decode(b""), str):
                return value
        except (LookupError, ValueError, TypeError):
            pass
        raise ValueError("must be the name of a text encoding, such as utf-8 or latin-1")


class OutputSection(Section):
    """The output to write.

    Attributes:
        path: a folder or URL.
        keep: input columns to keep, or "all".
        rows_per_part: rows of a part, or "auto".
        on_error: what happens to a row that fails: it becomes a dead letter ("dead_letter"), a
            dead letter and a row with null results ("null"), or it ends the run ("raise").
        max_errors: a share (below 1, or 1.0) or a number of dead letters that stops the run; null
            for no limit.
        schema: Arrow types of the columns that a user's pipeline adds, by name ("list<string>");
            by default they are inferred from a sample.
        storage_options: options for fsspec; never stored or shown.
    """

    path: PathOrUrl
    keep: Literal["all"] | list[str] = "all"
    rows_per_part: AutoOrCount = "auto"
    on_error: Literal["dead_letter", "null", "raise"] = "dead_letter"
    max_errors: float | int | None = Field(default=0.05, ge=0)
    schema: dict[str, str] | None = None  # type: ignore[assignment]
    storage_options: dict[str, Any] = Field(default={}, repr=False, exclude=True)

    @field_validator("max_errors", mode="before")
    @classmethod
    def _is_a_number(cls, value: object) -> object:
        # Python would take a bool as 1 or 0.
        if isinstance(value, bool) or (isinstance(value, float) and value > 1 and value % 1):
            raise ValueError(
                "must be a share or a number of rows, as 0.05 and 50 are, or null for no limit"
            )
        return value

    @field_validator("on_error", mode="before")
    @classmethod
    def _name_null(cls, value: object) -> object:
        return "null" if value is None else value  # YAML reads `on_error: null` as None


class ActorsSection(Section):
    """The model replicas, and what each of them holds.

    Attributes:
        min: actors that are requested at once if the cluster can grow; otherwise as many start as
            fit.
        max: the most actors; "auto" for as many as fit.
        num_gpus: GPUs of each actor, or a share of one. "gpu" divides each GPU among `per_gpu`
            actors; "cpu" is 0; "auto" is "gpu" if the cluster or this machine has GPUs, else "cpu".
        per_gpu: actors that share a GPU; "auto" chooses it by the model, the GPU's memory and the
            CPUs.
        num_cpus: CPUs of each actor.
        per_node: the most actors of a node, which share its CPUs equally, instead of `num_cpus`;
            None for as many as fit.
        placement: "fused" (one actor reads, computes and writes), "staged" (three Ray operators),
            "local" (this process, without Ray), or "auto".
        cluster: "auto" joins the Ray that is running or that RAY_ADDRESS names; "local" starts one
            on this machine for this run.
        pass_credentials: whether workers get the credentials (AWS_…, HF_TOKEN, …) that the
            driver's environment has and theirs lacks.
    """

    min: Count = Field(default=1, ge=1)
    max: AutoOrCount = "auto"
    num_gpus: Literal["auto", "gpu", "cpu"] | FiniteCount = "auto"
    per_gpu: AutoOrCount = "auto"
    num_cpus: Number = Field(default=1, gt=0, allow_inf_nan=False)
    per_node: Count | None = Field(default=None, ge=1)
    placement: Literal["auto", "fused", "staged", "local"] = "auto"
    cluster: Literal["auto", "local"] = "auto"
    pass_credentials: bool = True

    @model_validator(mode="after")
    def _check_order(self) -> ActorsSection:
        if self.max != "auto" and self.max < self.min:
            raise ValueError(f"max ({self.max}) is less than min ({self.min})")
        if self.per_node is not None and "num_cpus" in self.model_fields_set:
            raise ValueError(
                f"per_node ({self.per_node}) divides the CPUs of a node, but num_cpus "
                f"({self.num_cpus}) is given too: leave one of the two out"
            )
        if self.per_gpu != "auto" and self.num_gpus not in ("auto", "gpu"):
            raise ValueError(
                f"per_gpu ({self.per_gpu}) is for num_gpus auto or gpu, but num_gpus is "
                f"{self.num_gpus}: leave one of the two out"
            )
        if self.gpus_each > 1 and self.gpus_each % 1:
            raise ValueError(f"num_gpus ({self.gpus_each}) must be whole if it is above 1")
        return self

    @property
    def gpus_each(self) -> float:
        """GPUs of each actor; 0 until a device is chosen (`choose_device`)."""
        return 0 if isinstance(self.num_gpus, str) else self.num_gpus


class _ExplainedErrors(type(BaseModel)):  # type: ignore[misc]
    """Makes `Job(…)` raise a ConfigError with a line for each key that is wrong."""

    def __call__(cls, *args: Any, **keys: Any) -> Any:
        try:
            return super().__call__(*args, **keys)
        except ValidationError as error:
            raise ConfigError(explain_errors(error, cls, keys)) from None


class Job(Section, metaclass=_ExplainedErrors):
    """A job. `model`, `input` and `output` may be given as a path alone.

    Attributes:
        task: the name of a task.
        tasks: several tasks over the same rows instead of one, in their order. `task`, `model`,
            `parameters` and `batching` are then those of the first.
        pipeline_class: "package.module:Class", a subclass of `transformers.Pipeline` to use
            instead of the task's.
        model: the model, and how it is loaded.
        input: the rows to read.
        output: the output to write.
        parameters: the pipeline's parameters, with their names in transformers.
        batching: how rows are batched.
        actors: the model replicas, and what each of them holds.
    """

    task: str
    pipeline_class: str | None = None
    model: ModelSection
    input: InputSection
    output: OutputSection
    parameters: Parameters = Field(default={})
    batching: BatchingSection = BatchingSection()
    actors: ActorsSection = ActorsSection()
    tasks: list[TaskEntry] = Field(default=[], exclude_if=lambda value: not value)

    @model_validator(mode="before")
    @classmethod
    def _add_first_task(cls, data: Any) -> Any:
        return with_first_task(data) if isinstance(data, Mapping) else data

    @field_validator("tasks")
    @classmethod
    def _have_names(cls, value: list[TaskEntry]) -> list[TaskEntry]:
        labels = [entry.label for entry in value]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"two of them are called {twice[0]}: give each a name")
        return value

    def each_task(self) -> tuple[Job, ...]:
        """Return a job of one task for each of `tasks`; this job if it has one task."""
        if not self.tasks:
            return (self,)
        return tuple(
            self.model_copy(
                update={
                    **{key: getattr(entry, key) for key in OF_ONE_TASK},
                    "input": self.input.model_copy(
                        update={"columns": {**self.input.columns, **entry.columns}}
                    ),
                    "tasks": [],
                }
            )
            for entry in self.tasks
        )

    @model_validator(mode="before")
    @classmethod
    def _ask_loaded_model(cls, data: Any) -> Any:
        return with_loaded_model(data) if isinstance(data, Mapping) else data

    @field_validator("model", "input", "output", mode="before")
    @classmethod
    def _take_path_alone(cls, value: Any) -> Any:
        is_path = isinstance(value, str | list) or holds_rows(value)
        return {"path": value} if is_path else value
