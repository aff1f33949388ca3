"""Describe a task: its columns, its parameters, and what the workers run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from .device_transfer import Outputs

# What a column may hold; `actors/columns.py` says in what types.
KINDS = (
    "text texts labels flag number image audio video messages table words boxes record any".split()
)  # fmt: skip
MEDIA = ("image", "audio", "video")

_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((float, int), "a number"),
    "real": ((float, int), "a number"),  # taken as a float: transformers refuses an int here
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a text"),
    "list": ((list, tuple), "a list"),
    "dict": ((dict,), "a mapping"),
    "null": ((type(None),), "null"),
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that a task reads.

    Attributes:
        name: what the task calls it; the job may map a column of another name to it.
        kind: one of `KINDS`.
        required: whether the job fails without it, and a row in which it is null.
        parameter: whether a parameter of the same name serves in its place, for all rows.
    """

    name: str
    kind: str
    required: bool = True
    parameter: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"the kind of a column is one of {', '.join(KINDS)}, not {self.kind!r}"
            )

    @property
    def may_be_empty(self) -> bool:
        """Whether an empty text says that a row lacks this parameter: CSV has no nulls."""
        return self.parameter and not self.required and self.kind in ("text", "texts")


@dataclass(frozen=True)
class Parameter:
    """A parameter that a task takes.

    Attributes:
        default: its value where the job gives none.
        kind: names of types with "|" between them ("int|null"), or "any".
        choices: the only values that it may have, if there are only some.
        least: the smallest number that it may be.
        most: the largest number that it may be.
        above: a number that it must be more than.
        below: a number that it must be less than.
        each: what the items of a list are.
        count: how many items a list must have.
        filled: whether a text, a list or a mapping must hold something.
        keys: what a mapping may hold, by name.
        more: whether a mapping may hold other names, too.
    """

    default: Any
    kind: str
    choices: tuple[Any, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    each: Parameter | None = None
    count: int | None = None
    filled: bool = False
    keys: Mapping[str, Parameter] | None = None
    more: bool = False

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kind.split("|") if kind not in (*_TYPES, "any")]:
            raise ValueError(
                f"{unknown[0]!r} is no kind of a parameter: these are any, {', '.join(_TYPES)}"
            )

    def validate(self, name: str, value: Any) -> Any:
        """Return the value as the task takes it. Raise ValueError for one that can't be right."""
        for choice in self.choices:
            # 1 is equal to True, and is a number where a kind is named.
            same = choice == value and (self.kind == "any" or _is_bool(choice) == _is_bool(value))
            if same or (isinstance(value, str) and choice == value.lower()):
                return choice
        kinds = self.kind.split("|")
        if self.kind == "any" and not self.choices:
            return value
        fits = isinstance(value, tuple(t for k in kinds if k != "any" for t in _TYPES[k][0]))
        if self.choices or not fits or (_is_bool(value) and "bool" not in kinds):
            raise self._explain_wrong(name, value)
        if isinstance(value, int | float) and not _is_bool(value):
            if not self._is_in_bounds(value):
                raise self._explain_wrong(name, value)
            return float(value) if "real" in kinds else value
        if isinstance(value, str | list | tuple | dict):
            return self._check_content(name, value)
        return value

    def _is_in_bounds(self, value: float) -> bool:
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return (
            abs(value) < 2**63  # what holds it in tensors and columns
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def _check_content(self, name: str, value: Any) -> Any:
        """Return a text, list or mapping after a check of what it holds."""
        if self.filled and not value:
            raise self._explain_wrong(name, value)
        if isinstance(value, list | tuple):
            if self.count is not None and len(value) != self.count:
                raise self._explain_wrong(name, value)
            if self.each is not None:
                return [self.each.validate(f"{name}[{i}]", one) for i, one in enumerate(value)]
        if isinstance(value, dict) and self.keys is not None:
            return {key: self._validate_key(name, key, one) for key, one in value.items()}
        return value

    def _validate_key(self, name: str, key: Any, value: Any) -> Any:
        known = (self.keys or {}).get(key)
        if known is not None:
            if value is None and not known.nullable:
                return value  # as if it were not given
            return known.validate(f"{name}: {key}", value)
        if self.more and isinstance(key, str):
            return value
        raise ValueError(f"{name} takes {', '.join(self.keys or {})}, not {key!r}")

    def _explain_wrong(self, name: str, value: Any) -> ValueError:
        shown = repr(value)
        shown = shown if len(shown) <= 100 else f"{shown[:100]}…"
        return ValueError(f"{name} is {self.wanted()}, not {shown}")

    @property
    def nullable(self) -> bool:
        """Whether null is a value of it; else null means that nothing was given."""
        return None in self.choices or self.kind == "any" or "null" in self.kind.split("|")

    def wanted(self) -> str:
        """Return what its values are, for messages."""
        if self.choices:
            return f"one of {', '.join(map(_format_yaml, self.choices))}"
        if self.kind == "any":
            return "any value"
        return " or ".join(self._describe(kind) for kind in self.kind.split("|"))

    def _describe(self, kind: str) -> str:
        """Return what a value of one of its kinds is, with its limits."""
        text = _TYPES[kind][1]
        if kind in ("int", "float", "real"):
            return f"{text} {self._describe_bounds()}".strip()
        if kind == "list" and self.count is not None:
            text = f"a list of {self.count}"
        if kind == "list" and self.each is not None:
            text += f" (each {self.each.wanted()})"
        if self.filled and kind in ("str", "list", "dict"):
            text += " that is not empty"
        return text

    def _describe_bounds(self) -> str:
        if self.least is not None and self.most is not None:
            return f"from {self.least:g} to {self.most:g}"
        bounds = {
            "of at least": self.least,
            "above": self.above,
            "of at most": self.most,
            "below": self.below,
        }
        return " and ".join(f"{n} {bound:g}" for n, bound in bounds.items() if bound is not None)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _format_yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower() if _is_bool(value) else str(value)


class NotScheduled(BaseException):
    """What `forward` raises when it can't choose which chunks run together: none of them is lost.

    The task's `schedules` is false from then on, and it gets the chunks again in micro-batches.
    """


class LoadedTask(Protocol):
    """A task that runs: three functions over the rows of a split.

    Every function is free to raise: the caller finds the rows or chunks at fault and keeps the
    others. `rows` holds the task's own column names, without nulls in required columns.

    Attributes:
        name: the Hugging Face name of the task.
        inputs: the columns that it reads.
        repeats: whether equal chunks always have equal outputs. May be left out if false.
        packed: whether chunks of a micro-batch cost their tokens only, and no padding. May be left
            out if false.
        schedules: whether `forward` takes all chunks of a split at once, in several threads, and
            chooses which of them run together, or raises NotScheduled. May be left out if false.
        explain_failure: given a table of one row that failed, and its error, returns an error that
            says more plainly what is wrong with the row. May be left out.
        expand_each: does what `expand` does, but for rows that fail: given the rows, returns the
            chunks of the others, and the errors by the position of their row. May be left out: then
            `expand` is called again with fewer rows until those that fail are alone.
    """

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> tuple[Column, ...]: ...

    @property
    def repeats(self) -> bool: ...

    @property
    def packed(self) -> bool: ...

    @property
    def schedules(self) -> bool: ...

    def results(self) -> pa.Schema:
        """Return the columns that the task adds, the same for every split."""

    def expand(self, rows: pa.Table) -> pa.ListArray:
        """Return the chunks of each row: lists of structs with a field `size`, in tokens.

        A field `group`, where there is one, is a number: only chunks of equal number share a
        micro-batch. A field `lost`, where there is one, counts tokens that were cut from the
        row's text and that no chunk holds; the counts of a row's chunks add up.
        """

    def forward(self, chunks: pa.StructArray) -> Outputs:
        """Return one output for each chunk of a micro-batch, computed on the device.

        Or a function that waits for them, if they are on their way from a GPU (`to_host_async`).
        """

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        """Return the result columns, one row per row, from the outputs of each row's chunks."""


class Task(LoadedTask, Protocol):
    """A task as a class, made from a `Loaded`: what the driver asks of it before it is loaded.

    A task that follows what a model's folder says has two static methods more. The driver calls
    `files(read)`, which returns the JSON files that say it, by name (`read` gives a file's content,
    or None), and `follow(parameters, files)`, which returns a `Followed` or raises ValueError;
    `Loaded.files` brings the same files to the worker. `pipelines.task_spec.TaskSpec` lists all
    that a class may say.

    Attributes:
        parameters: the parameters that it takes, by name.
        adds: the columns that it adds, in words.
    """

    parameters: Mapping[str, Parameter]
    adds: str

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        """Raise ValueError for values that don't go together; gets all, with defaults."""


@dataclass(frozen=True, kw_only=True)
class Followed:
    """What a task does because the model's folder says so.

    Attributes:
        pooling: how vectors are made, in words.
        weights: folders inside the model's whose weights the task loads, too.
        decides: what decides the results, by name; only what differs from what the task does with
            a model whose folder says nothing.
        notes: what users may not expect of the answers.
    """

    pooling: str | None = None
    weights: tuple[str, ...] = ()
    decides: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a task is made of: a loaded pipeline, and what the job says about it.

    Attributes:
        pipeline: a `transformers.Pipeline`.
        parameters: those that the user gave.
        columns: names of the task's columns that the input has.
        media: reads what a row names by path or URL (`pipelines/media`).
        schema: the columns that the task adds, if the job declares them or a sample showed them.
        compiles: whether torch is to compile the model.
        engine: what computes: "auto", or the name of an engine that a package brings.
        num_gpus: GPUs that the worker holds, or a share of one.
        files: JSON files of the model's folder that say how it is used, by name.
        file: returns the path of another file of that folder, or None.
    """

    pipeline: Any
    parameters: Mapping[str, Any]
    columns: tuple[str, ...] = ()
    media: Any = None
    schema: pa.Schema | None = None
    compiles: bool = False
    engine: str = "auto"
    num_gpus: float = 0
    files: Mapping[str, Any] = field(default_factory=dict)
    file: Callable[[str], Path | None] = lambda name: None

    def settings(self, known: Mapping[str, Parameter]) -> dict[str, Any]:
        """Return the user's parameters over the defaults. known: the task's parameters."""
        return {**{name: p.default for name, p in known.items()}, **self.parameters}
