"""What a task must be for the workers to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from .on_host import Outputs

# What a column may hold; `jobs/kinds.py` says in what types.
KINDS = (
    "text labels flag number image audio video messages table words boxes any".split()
)  # fmt: skip
MEDIA = ("image", "audio", "video")

_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a number"),
    "float": ((float, int), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a text"),
    "list": ((list, tuple), "a list"),
    "dict": ((dict,), "a mapping"),
    "null": ((type(None),), "null"),
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that a task reads.

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


@dataclass(frozen=True)
class Parameter:
    """A parameter that a task takes.

    kind: names of types with "|" between them ("int|null"), or "any".
    choices: the only values it may have, if it has only some.
    """

    default: Any
    kind: str
    choices: tuple[Any, ...] = ()

    def taken(self, name: str, value: Any) -> Any:
        """The value as the task takes it. Raises ValueError for one that can't be right."""
        for choice in self.choices:
            if choice == value or (isinstance(value, str) and choice == value.lower()):
                return choice
        kinds = self.kind.split("|")
        if self.kind == "any":
            return value
        fits = isinstance(value, tuple(t for kind in kinds for t in _TYPES[kind][0]))
        if self.choices or not fits or (isinstance(value, bool) and "bool" not in kinds):
            raise ValueError(f"{name} is {self.wanted()}, not {value!r}")
        return value

    @property
    def takes_null(self) -> bool:
        """Whether null means something else than that nothing was given."""
        return None in self.choices or self.kind == "any" or "null" in self.kind.split("|")

    def wanted(self) -> str:
        """What its values are, for messages."""
        if self.choices:
            names = ("null" if choice is None else str(choice) for choice in self.choices)
            return f"one of {', '.join(names)}"
        if self.kind == "any":
            return "any value"
        return " or ".join(_TYPES[kind][1] for kind in self.kind.split("|"))


class Task(Protocol):
    """One loaded task: three functions over the rows of a split.

    A task that follows what a model's folder says has two static methods more. The driver calls
    `files(read)`, which returns the JSON files that say it, by name (`read` gives a file's content,
    or None), and `follow(parameters, files)`, which returns a `Followed` or raises ValueError;
    `Loaded.files` brings the same files to the worker.

    Every function is free to raise: the caller finds the rows or chunks at fault and keeps the
    others. `rows` holds the task's own column names, without nulls in required columns.
    """

    name: str
    inputs: tuple[Column, ...]
    parameters: Mapping[str, Parameter]
    adds: str  # the columns it adds, for a reader
    # The last two may be left out where they are false.
    repeats: bool  # whether equal chunks always have equal outputs
    packed: bool  # whether chunks of a micro-batch cost their tokens only, and no padding

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        """Raises ValueError for values that don't go together; gets all, with defaults."""

    def results(self) -> pa.Schema:
        """The columns it adds, the same for every split."""

    def expand(self, rows: pa.Table) -> pa.ListArray:
        """Chunks per row: lists of structs with a field `size` (tokens, or their equivalent).

        A field `group`, where there is one, is a number: only chunks of equal number share a
        micro-batch. A field `lost`, where there is one, counts tokens that were cut from the
        row's text and that no chunk holds; a row has lost what its chunks say together.
        """

    def forward(self, chunks: pa.StructArray) -> Outputs:
        """One output per chunk of a micro-batch, computed on the device.

        Or a function that waits for them, if they are on their way from a GPU (`on_host`).
        """

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        """The result columns, one row per row, from the outputs of each row's chunks."""


@dataclass(frozen=True, kw_only=True)
class Followed:
    """What a task does because the model's folder says so.

    pooling: how vectors are made, in words.
    decides: what decides the results, by name; only what differs from what a task does whose
        model's folder says nothing.
    weights: folders inside the model's whose weights the task loads, too.
    """

    pooling: str | None = None
    weights: tuple[str, ...] = ()
    decides: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a task is made of: a loaded pipeline, and what the job says about it.

    pipeline: a `transformers.Pipeline`.
    parameters: those that the user gave.
    columns: names of the task's columns that the input has.
    media: reads what a row names by path or URL (`pipelines/media`).
    schema: the columns it adds, where the job declares or a sample has shown them.
    compiles: whether the model is to be compiled by torch.
    files: JSON files of the model's folder that say how it is used, by name.
    file: finds another file of that folder; None for one that it does not have.
    """

    pipeline: Any
    parameters: Mapping[str, Any]
    columns: tuple[str, ...] = ()
    media: Any = None
    schema: pa.Schema | None = None
    compiles: bool = False
    files: Mapping[str, Any] = field(default_factory=dict)
    file: Callable[[str], Path | None] = lambda name: None

    def settings(self, known: Mapping[str, Parameter]) -> dict[str, Any]:
        """The user's parameters over the defaults."""
        return {**{name: p.default for name, p in known.items()}, **self.parameters}
