"""What a library must do to run exported models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# The tasks whose model is called once for a micro-batch.
GRAPH_TASKS = (
    "feature-extraction",
    "fill-mask",
    "image-classification",
    "question-answering",
    "text-classification",
    "token-classification",
    "zero-shot-classification",
)

# From inputs, in the order of `Traced.names`, to outputs, in the order of `Traced.outputs`.
RunGraph = Callable[[list[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A model to export, with examples of its inputs.

    Attributes:
        module: called with one tensor for each of `names`; returns one for each of `outputs`.
        names: of the inputs.
        outputs: names of the outputs.
        examples: inputs of micro-batches, as numpy arrays; the first one is traced.
        free_axes: of each input, the axes whose length may be any.
    """

    module: Any
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    examples: list[list[np.ndarray]]
    free_axes: list[tuple[int, ...]]


class GraphRuntime(Protocol):
    """Exports a model, and runs what it exported. Importing it imports no library.

    Attributes:
        name: how a job names it (`model.engine`).
        modules: what must be importable.
        dtypes: what it can compute in, the first one if the job says nothing.
        width_step: chunks are padded to multiples of so many tokens; 1 where every new shape is as
            fast as a known one.
    """

    name: str
    modules: tuple[str, ...]
    dtypes: tuple[str, ...]
    width_step: int

    def calibrates(self, dtype: str) -> bool:
        """Tell whether the examples decide how the graph computes."""

    def export(self, traced: Traced, folder: Path) -> None:
        """Write the graph in float32 to a folder."""

    def reduce(self, traced: Traced, folder: Path, dtype: str) -> None:
        """Replace the graph in the folder by the one that computes in the dtype, if it differs."""

    def load(self, folder: Path, dtype: str, threads: int) -> RunGraph:
        """Return what runs the graph of a folder."""
