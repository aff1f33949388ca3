"""The columns of a task that only its answers show: asked of a sample, and frozen in the plan."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.actors.faults.attempts import Attempts, track_attempt
from pipemill.actors.faults.load_errors import LoadError
from pipemill.actors.workers import Load, Source, load_stages
from pipemill.pipelines.adapter.result_schema import (
    COLUMNS_OF_SAMPLE,
    COLUMNS_OF_TASK,
    own_columns_fit,
    schema_of,
)
from pipemill.pipelines.loading.task_loader import LoadTask

from pipemill.errors import RunError, error_message

from ..config.job import ActorsSection
from ..execution.placement import with_credentials
from ..output.split_plan import Split
from .find_model import load_failure

_ROWS = 32
_SPLITS = 4
_SAMPLING = "sampling"
# Which rows of a split are asked, first row and count: all at once, and where a process died of
# one of them, some.
_WINDOWS = [(0, _ROWS), *((start, 8) for start in range(0, _ROWS, 8))]

_DIED = (
    "a sample shows which columns the task adds, but the process that computed it died, whichever "
    "of the first rows it was given; declare the columns in output.schema"
)

# The schema, or why there is none.
Found = tuple[bytes | None, str | LoadError | None]


def infer_columns(
    load: LoadTask,
    source: Source,
    splits: list[Split],
    placement: str,
    actors: ActorsSection,
    attempts: Attempts,
) -> bytes:
    """Computes a few rows as an actor would, and returns the schema of their answers.

    Raises RunError with the reason if that can't be done, ConfigError if the model can't load.
    """
    few = [split.to_json() for split in splits[:_SPLITS]]
    deaths = [name for name in attempts.names() if name.startswith(f"{_SAMPLING}.")]
    found: Found | None = None
    for window in _WINDOWS[len(attempts.gone(deaths)) :]:
        with track_attempt(attempts, _SAMPLING):
            if placement == "local":
                found = _schema_of(load, source, few, window)
            else:
                found = _schema_by_ray(load, source, few, window, actors)
        if found is not None:
            break
    attempts.end(deaths)
    schema, reason = found or (None, _DIED)
    if isinstance(reason, LoadError):
        raise load_failure(reason, load.model.path)
    if schema is None:
        raise RunError(str(reason))
    return schema


def _schema_by_ray(
    load: LoadTask,
    source: Source,
    splits: list[str],
    window: tuple[int, int],
    actors: ActorsSection,
) -> Found | None:
    """None if the process died."""
    import ray

    sample = ray.remote(_schema_of).options(
        num_cpus=actors.num_cpus, num_gpus=actors.gpus_each, max_retries=0
    )
    try:
        return ray.get(sample.remote(with_credentials(load, actors), source, splits, window))
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        return None
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [""]
        return None, f"no sample could be computed: {lines[-1]}"


def _schema_of(load: Load, source: Source, splits: list[str], window: tuple[int, int]) -> Found:
    """The schema, or why there is none: not every exception of a user's code survives its way."""
    try:
        return schema_of_sample(load_stages(load), source, splits, window), None
    except LoadError as error:
        return None, error.with_traceback(None)
    except RunError as error:
        return None, str(error)
    except Exception as error:
        return None, f"the sample failed: {type(error).__name__}: {error_message(error)}"


def schema_of_sample(
    stages: Stages, source: Source, splits: list[str], window: tuple[int, int] = _WINDOWS[0]
) -> bytes:
    """The schema of the answers of some rows; the splits as workers are told of them."""
    answers, failed = _sample(stages, source, splits, window)
    if not answers:
        raise RunError(f"of the first rows none could be computed; {'; '.join(failed[:3])}")
    return _common(stages.task, answers).serialize().to_pybytes()


def _sample(
    stages: Stages, source: Source, splits: list[str], window: tuple[int, int]
) -> tuple[list[Any], list[str]]:
    """The answers of the first rows, and why others have none."""
    start, count = window
    answers: list[Any] = []
    reasons: list[str] = []
    for split in splits:
        batch = source.read(json.loads(split))
        few = Batch(batch.rows.slice(start, count))
        few.failures = {
            row - start: f for row, f in batch.failures.items() if start <= row < start + count
        }
        answers += stages.answers(few)
        reasons += [f"row {start + row}: {f.error}: {f.message}" for row, f in few.failures.items()]
        if len(answers) >= _ROWS:
            break
    return answers, reasons


def _common(task: Any, answers: list[Any]) -> pa.Schema:
    """The task's own columns where they say all of every answer, else one of the answers' type."""
    declared = task.declared
    if declared.results is not None:
        own = declared.results(task.loaded)
        if own_columns_fit(declared, answers, own, task.keywords.given):
            return own.with_metadata({b"columns": COLUMNS_OF_TASK})
    return schema_of(answers).with_metadata({b"columns": COLUMNS_OF_SAMPLE})
