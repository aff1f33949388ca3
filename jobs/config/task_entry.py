"""What a job says of each of its tasks: the model, how rows are batched, and the task itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pipemill.actors.compute.row_condition import RowCondition
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)

from .loaded_model import LoadedModel


def check_number(value: Any) -> Any:
    if isinstance(value, bool):  # Python would take it as 1 or 0
        raise ValueError("must be a number")
    if isinstance(value, int) and value >= 2**63:
        raise ValueError("is too large")
    return value


def to_plain_values(value: Any) -> Any:
    """Return numbers and arrays of numpy, pandas and torch as Python's own numbers and lists."""
    if isinstance(value, dict):
        return {name: to_plain_values(one) for name, one in value.items()}
    if isinstance(value, list):
        return [to_plain_values(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


Parameters = Annotated[dict[str, Any], BeforeValidator(to_plain_values)]


def _name_dtype(value: Any) -> Any:
    """Return the name of a dtype, also of one of torch's, which transformers takes."""
    is_torchs = type(value).__module__ == "torch" and type(value).__name__ == "dtype"
    return str(value).removeprefix("torch.") if is_torchs or isinstance(value, str) else value


def _check_at_least_one(value: str | int) -> str | int:
    if isinstance(value, int) and value < 1:
        raise ValueError(f"must be at least 1, not {value}")
    return value


def check_paths(value: Any) -> Any:
    paths = [value] if isinstance(value, str) else value
    if not paths or not all(path.strip() for path in paths):
        raise ValueError("must not be empty")
    if any("\0" in path for path in paths):
        raise ValueError("must not hold the character NUL")
    return value


# "" would mean the current folder.
PathOrUrl = Annotated[str, AfterValidator(check_paths)]
AutoOrCount = Annotated[
    Literal["auto"] | int, AfterValidator(_check_at_least_one), BeforeValidator(check_number)
]
Count = Annotated[int, BeforeValidator(check_number)]
Number = Annotated[float, BeforeValidator(check_number)]
FiniteCount = Annotated[Number, Field(ge=0, allow_inf_nan=False)]


def _check_path_or_loaded(value: Any, path: Any) -> Any:
    return value if isinstance(value, LoadedModel) else path(value)


# Or a model in memory, which the type leaves out, too.
ModelPath = Annotated[PathOrUrl, WrapValidator(_check_path_or_loaded), PlainSerializer(str)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, data: Any) -> Any:
        """Take a key without a value, such as `parameters:`, for one that holds no keys."""
        if not isinstance(data, Mapping):
            return data
        holders = [
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.default, dict | BaseModel)
        ]
        return {
            key: value for key, value in data.items() if value is not None or key not in holders
        }


class ModelSection(Section):
    """The model, and how it is loaded.

    Attributes:
        path: a folder, a Hub name, or the URL of a folder on an object store; in Python, instead
            of a section, also a `transformers.Pipeline`, or a mapping with a loaded model.
        adapter: a folder, Hub name or URL of a PEFT adapter that is merged into the model at
            `path`.
        revision: a branch, tag or commit on the Hub.
        dtype: "float32", "bfloat16", "float16", "int8" (text encoders and image classifiers on a
            CPU), or "auto": as saved on a CPU, bfloat16 on a GPU.
        trust_remote_code: whether code in the model's folder may run.
        use_safetensors: whether only weights in safetensors are read, which can't hold code. If
            not, pickled ones are read, too, as transformers does.
        allow_missing: whether weights that the checkpoint lacks may be random numbers, which
            differ in every process, and layers beyond those that config.json counts may be left
            out. If not, such a model is refused.
        compile: whether `torch.compile` compiles the model, for micro-batches padded to a few
            widths.
        engine: what computes: "auto" (torch), "onnx" (ONNX Runtime), "openvino", or the name of an
            engine that an installed package brings.
        storage_options: options for fsspec, for a URL; never stored or shown.
    """

    path: ModelPath
    revision: str | None = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "int8"], BeforeValidator(_name_dtype)
    ] = "auto"
    trust_remote_code: bool = False
    use_safetensors: bool = True
    allow_missing: bool = False
    compile: bool = False
    # Left out of a job.json where nothing was chosen: older versions know no such key.
    engine: str = Field(default="auto", exclude_if=lambda value: value == "auto")
    storage_options: dict[str, Any] = Field(default={}, repr=False, exclude=True)
    adapter: PathOrUrl | None = Field(default=None, exclude_if=lambda value: value is None)


class BatchingSection(Section):
    """How rows are batched.

    Attributes:
        max_tokens: the most padded tokens in a micro-batch; "auto" measures it.
    """

    max_tokens: AutoOrCount = "auto"


class TaskEntry(Section):
    """One of several tasks over the same rows. `model` may be given as a path alone.

    Attributes:
        task: the name of a task.
        model: the model, and how it is loaded.
        name: put before the columns that the task adds ("topic" makes "topic_label"), and what
            messages call it; by default the columns keep their names.
        columns: the data's column for each of the task's, added to those in `input.columns`.
        where: a condition on columns of the input and those that earlier tasks add, such as
            "topic_label == 'sports' and topic_score > 0.9". Other rows are not computed: the
            columns that the task adds are null there.
        parameters: the pipeline's parameters, with their names in transformers.
        batching: how rows are batched.
    """

    task: str
    model: ModelSection
    name: str | None = None
    columns: dict[str, str | None] = {}
    where: str | None = None
    parameters: Parameters = {}
    batching: BatchingSection = BatchingSection()

    @property
    def label(self) -> str:
        """Return what messages call it."""
        return self.name or self.task

    @property
    def prefix(self) -> str:
        """Return what is put before the names of its columns."""
        return "" if self.name is None else f"{self.name}_"

    @field_validator("model", mode="before")
    @classmethod
    def _take_path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not value.isidentifier():
            raise ValueError("must be a name of letters, digits and _")
        return value

    @field_validator("where")
    @classmethod
    def _is_a_condition(cls, value: str | None) -> str | None:
        if value is not None:
            RowCondition(value)
        return value


# Keys of a job of one task, which each of several tasks has instead.
OF_ONE_TASK = ("task", "model", "parameters", "batching")


def with_first_task(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the keys of a job of several tasks with those of the first task."""
    tasks = data.get("tasks")
    if not tasks:
        return data
    try:
        if not isinstance(tasks, list | tuple):
            raise TypeError
        first = TaskEntry.model_validate(tasks[0])
    except (ValidationError, TypeError):  # which `tasks` will report
        return {**data, "task": "", "model": "?"}
    of_first = {key: getattr(first, key) for key in OF_ONE_TASK}
    given = {**data, "pipeline_class": data.get("pipeline_class")}
    for key in (*OF_ONE_TASK, "pipeline_class"):
        plain = of_first.get(key)
        plain = plain.model_dump() if isinstance(plain, BaseModel) else plain
        # A job that was stored has both.
        if given.get(key) and given[key] not in (of_first.get(key), plain):
            raise ValueError(
                f"{key} and tasks are both given: put it into each of the tasks "
                f"(--set tasks.NAME.{key}=…), or leave tasks out"
                if key in of_first
                else f"{key} and tasks are both given: a class of your own can't be one of several"
            )
    return {**data, **of_first}
