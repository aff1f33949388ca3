"""What a task must be for the workers to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that a task reads.

    kind: "text" (a string), "labels" (a list of strings, or one string with commas) or
        "flag" (a boolean).
    required: whether the job fails without it, and a row in which it is null.
    parameter: whether a parameter of the same name serves in its place, for all rows.
    """

    name: str
    kind: str
    required: bool = True
    parameter: bool = False


class Task(Protocol):
    """One loaded task: three functions over the rows of a split.

    Every function is free to raise: the caller finds the rows or chunks at fault and keeps the
    others. `rows` holds the task's own column names, without nulls in required columns.
    """

    name: str
    inputs: tuple[Column, ...]
    parameters: Mapping[str, Any]  # the names it takes, with their defaults

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        """Raises ValueError for a value that can't be right; gets all parameters, with defaults."""

    def __init__(self, pipeline: Any, parameters: Mapping[str, Any]) -> None:
        """Takes a loaded `transformers.Pipeline` and the user's parameters."""

    def results(self) -> pa.Schema:
        """The columns it adds, known from the model alone."""

    def expand(self, rows: pa.Table) -> pa.ListArray:
        """Chunks per row: lists of structs with a field `size` (tokens, or their equivalent).

        A field `group`, where there is one, is a number: only chunks of equal number share a
        micro-batch. A field `lost`, where there is one, counts tokens that were cut from the
        row's text and that no chunk holds; a row has lost what its chunks say together.
        """

    def forward(self, chunks: pa.StructArray) -> pa.Array:
        """One output per chunk of a micro-batch, computed on the device."""

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        """The result columns, one row per row, from the outputs of each row's chunks."""
