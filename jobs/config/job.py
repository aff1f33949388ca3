"""What a job is: one task, one model, one dataset, one output."""

from __future__ import annotations

import codecs
import warnings
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WrapValidator,
    field_validator,
    model_validator,
)

from . import hf_dataset


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):  # which Python counts as 1 or 0
        raise ValueError("must be a number")
    if isinstance(value, int) and value >= 2**63:
        raise ValueError("is too large")
    return value


def _at_least_one(value: str | int) -> str | int:
    if isinstance(value, int) and value < 1:
        raise ValueError(f"must be at least 1, not {value}")
    return value


def _names_something(value: Any) -> Any:
    paths = [value] if isinstance(value, str) else value
    if not paths or not all(path.strip() for path in paths):
        raise ValueError("names nothing")
    return value


# "" would be the current folder.
PathOrUrl = Annotated[str, AfterValidator(_names_something)]
AutoOrCount = Annotated[
    Literal["auto"] | int, AfterValidator(_at_least_one), BeforeValidator(_no_flag)
]
Count = Annotated[int, BeforeValidator(_no_flag)]
Number = Annotated[float, BeforeValidator(_no_flag)]
FiniteCount = Annotated[Number, Field(ge=0, allow_inf_nan=False)]


def _path_or_dataset(value: Any, paths: Any) -> Any:
    if not hf_dataset.is_dataset(value):
        return paths(value)
    hf_dataset.check(value)
    return value


# Typed as the paths that it nearly always is.
InputPath = Annotated[
    str | list[str],
    AfterValidator(_names_something),
    WrapValidator(_path_or_dataset),
    PlainSerializer(hf_dataset.described),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """path: a folder or a Hub name.

    dtype: "float32", "bfloat16", "float16", or "auto": on a CPU as saved, on a GPU bfloat16.
    use_safetensors: whether only weights in safetensors are read, which can hold no code; without
        it also pickled ones, as transformers does.
    allow_missing: whether weights that the checkpoint lacks may be random numbers, which differ in
        every process; without it such a model is refused.
    compile: whether `torch.compile` compiles it, for micro-batches padded to a few widths.
    engine: what computes: "auto", or the name of an engine that an installed package brings.
    """

    path: PathOrUrl
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False
    use_safetensors: bool = True
    allow_missing: bool = False
    compile: bool = False
    # Left out of a job.json where nothing was chosen: older versions know no such key.
    engine: str = Field(default="auto", exclude_if=lambda value: value == "auto")


# pydantic has a method of that name, deprecated long ago; the key is too good a name to give up.
warnings.filterwarnings("ignore", message='Field name "schema" in "(In|Out)putSection"')


class InputSection(_Section):
    """path: files, folders, globs or URLs; in Python also a `datasets.Dataset`.

    columns: the task's names to the data's; null for one that the task is not to read.
    limit: only so many rows, from the start.
    schema: the types of columns, name to Arrow type ("int64"), where the user knows better.
    encoding: of CSV, JSON and text files that have no byte order mark; UTF-8 without it.
    media_roots: folders and URLs below which paths and URLs in media columns are read; without
        it, the folders that the input's files lie in.
    storage_options: for fsspec; never stored or shown.
    """

    path: InputPath
    format: Literal["auto", "parquet", "jsonl", "csv", "text", "arrow", "webdataset", "files"] = (
        "auto"
    )
    columns: dict[str, str | None] = {}
    limit: Annotated[int | None, BeforeValidator(_no_flag)] = Field(default=None, ge=1)
    schema: dict[str, str] | None = None  # type: ignore[assignment]
    encoding: str | None = None
    media_roots: list[str] | None = None
    storage_options: dict[str, Any] = Field(default={}, repr=False, exclude=True)

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            # Text is decoded a bit at a time; "hex" and the like make no text.
            if isinstance(codecs.getincrementaldecoder(value)().decode(b""), str):
                return value
        except (LookupError, ValueError, TypeError):
            pass
        raise ValueError(f"no encoding of text is called {value!r}; there are utf-8, latin-1, …")


class OutputSection(_Section):
    """path: a folder or URL. keep: input columns to keep, or "all".

    on_error: what becomes of a row that fails: a dead letter; a dead letter and a row with null
        results ("null"); or the end of the run ("raise").
    max_errors: a share (below 1, or 1.0) or a number of dead rows that stops the run; null for no
        limit.
    schema: the columns that a pipeline of the user's adds, name to Arrow type ("list<string>");
        without it they are inferred from a sample.
    """

    path: PathOrUrl
    keep: Literal["all"] | list[str] = "all"
    rows_per_part: AutoOrCount = "auto"
    on_error: Literal["dead_letter", "null", "raise"] = "dead_letter"
    max_errors: float | int | None = Field(default=0.05, ge=0)

    @field_validator("max_errors", mode="before")
    @classmethod
    def _is_a_number(cls, value: object) -> object:
        if isinstance(value, bool):  # which Python counts as 1 or 0
            raise ValueError("must be a share or a number of rows, or null for no limit")
        return value

    @field_validator("on_error", mode="before")
    @classmethod
    def _null_is_a_name(cls, value: object) -> object:
        return "null" if value is None else value  # as YAML reads `on_error: null`

    schema: dict[str, str] | None = None  # type: ignore[assignment]
    storage_options: dict[str, Any] = Field(default={}, repr=False, exclude=True)


class BatchingSection(_Section):
    """max_tokens: the most padded tokens in a micro-batch."""

    max_tokens: AutoOrCount = "auto"


class ActorsSection(_Section):
    """How many model replicas, and what each holds.

    min: so many are asked for at once, where a cluster grows; elsewhere as many start as fit.
    max: "auto" for as many as fit.
    num_gpus: GPUs of each actor, or a share of one; "gpu" divides each GPU among `per_gpu` actors;
        "cpu" is 0; "auto" is "gpu" where the cluster or this machine has GPUs, else "cpu".
    per_gpu: actors that share a GPU; "auto" for as many as the model, the GPU's memory and the CPUs
        suggest.
    placement: "fused" (one actor reads, computes and writes), "staged" (three Ray operators),
        "local" (this process, without Ray), or "auto".
    cluster: "auto" joins the Ray that runs or that RAY_ADDRESS names; "local" starts one for this
        run on this machine.
    pass_credentials: whether workers get the credentials (AWS_…, HF_TOKEN, …) that the driver's
        environment has and theirs lacks.
    """

    min: Count = Field(default=1, ge=1)
    max: AutoOrCount = "auto"
    num_gpus: Literal["auto", "gpu", "cpu"] | FiniteCount = "auto"
    per_gpu: AutoOrCount = "auto"
    num_cpus: Number = Field(default=1, gt=0, allow_inf_nan=False)
    placement: Literal["auto", "fused", "staged", "local"] = "auto"
    cluster: Literal["auto", "local"] = "auto"
    pass_credentials: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> ActorsSection:
        if self.max != "auto" and self.max < self.min:
            raise ValueError(f"max ({self.max}) is less than min ({self.min})")
        if self.per_gpu != "auto" and self.num_gpus not in ("auto", "gpu"):
            raise ValueError(
                f"per_gpu ({self.per_gpu}) divides GPUs where num_gpus is auto or gpu, and "
                f"num_gpus is {self.num_gpus}: leave out one of the two"
            )
        return self

    @property
    def gpus_each(self) -> float:
        """GPUs of each actor; 0 until a device is chosen (`choose_device`)."""
        return 0 if isinstance(self.num_gpus, str) else self.num_gpus


class Job(_Section):
    """A job; `model`, `input` and `output` may be given as a path alone.

    parameters: the pipeline's own, with their names in transformers.
    pipeline_class: "package.module:Class", a subclass of `transformers.Pipeline` that does the
        task instead of transformers' own.
    """

    task: str
    pipeline_class: str | None = None
    model: ModelSection
    input: InputSection
    output: OutputSection
    parameters: dict[str, Any] = {}
    batching: BatchingSection = BatchingSection()
    actors: ActorsSection = ActorsSection()

    @field_validator("model", "input", "output", mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        alone = isinstance(value, str | list) or hf_dataset.is_dataset(value)
        return {"path": value} if alone else value
