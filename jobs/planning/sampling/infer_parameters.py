"""Infer parameters from a few rows, once, for all rows of a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.task_spec import TaskSpec

from pipemill.errors import RunError, StoreError

_ROWS = 800


def infer_parameters(
    spec: TaskSpec,
    parameters: Mapping[str, Any],
    model: ModelFiles,
    read_rows: Callable[[int], pa.Table],
    columns: Mapping[str, str],
) -> dict[str, Any]:
    """Return what some rows say of the parameters that the user left open.

    Args:
        model: its files.
        read_rows: reads so many rows of the input.
        columns: the input's column for each of the task's.
    """
    asked = {
        name: infer for name, infer in spec.infer_parameters.items() if parameters.get(name) is None
    }
    if not asked:
        return {}
    try:
        rows = read_rows(_ROWS)
    except RunError as error:
        if isinstance(error.__cause__, StoreError):  # the rows may be read when it is back
            raise
        return {}  # the run will say what is wrong with them
    values = {name: rows[column].to_pylist() for name, column in columns.items()}
    folder = model.settings_folder()
    return {name: infer(values, folder) for name, infer in asked.items()}
