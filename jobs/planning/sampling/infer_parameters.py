"""Infer parameters from a few rows, once, for all rows of a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipemill.actors.sources.base import Source
from pipemill.actors.split import Split
from pipemill.pipelines.task_spec import TaskSpec

from pipemill.errors import RunError

from .sample_rows import sample_rows

_ROWS = 800


def infer_parameters(
    spec: TaskSpec,
    parameters: Mapping[str, Any],
    model: str,
    source: Source,
    splits: list[Split],
    columns: Mapping[str, str],
) -> dict[str, Any]:
    """Return what rows of some splits say of the parameters that the user left open."""
    asked = {
        name: infer for name, infer in spec.infer_parameters.items() if parameters.get(name) is None
    }
    if not asked:
        return {}
    try:
        rows = sample_rows(source, splits, _ROWS).rows
    except RunError:  # the run will say what is wrong with them
        return {}
    values = {name: rows[column].to_pylist() for name, column in columns.items()}
    return {name: infer(values, Path(model)) for name, infer in asked.items()}
