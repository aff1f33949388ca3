"""The columns of a task that only its answers show: asked of a sample, and frozen in the plan."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from pipemill.actors.attempts import Attempts, attempt
from pipemill.actors.batch import Batch
from pipemill.actors.worker import Source
from pipemill.pipelines.inferred import own_columns_fit, schema_of
from pipemill.pipelines.load import LoadTask

from .errors import RunError
from .job import ActorsSection
from .plan import Split

_ROWS = 32
_SPLITS = 4
_SAMPLING = "sampling"
# Which rows of a split are asked, first row and count: all at once, and where a process died of
# one of them, some.
_WINDOWS = [(0, _ROWS), *((start, 8) for start in range(0, _ROWS, 8))]


def sampled_schema(
    load: LoadTask,
    source: Source,
    splits: list[Split],
    placement: str,
    actors: ActorsSection,
    attempts: Attempts,
) -> bytes:
    """Computes a few rows as an actor would, and returns the schema of their answers."""
    few = [split.to_json() for split in splits[:_SPLITS]]
    deaths = [name for name in attempts.names() if name.startswith(f"{_SAMPLING}.")]
    windows = _WINDOWS[len(attempts.gone(deaths)) :]
    for window in windows:
        with attempt(attempts, _SAMPLING):
            if placement == "local":
                schema: bytes | None = _schema_of(load, source, few, window)
            else:
                schema = _schema_by_ray(load, source, few, window, actors)
        if schema is not None:
            attempts.end(deaths)
            return schema
    attempts.end(deaths)
    raise RunError(
        "a sample shows which columns the task adds, but the process that computed it died, "
        "whichever of the first rows it was given; declare the columns in output.schema"
    )


def _schema_by_ray(
    load: LoadTask,
    source: Source,
    splits: list[str],
    window: tuple[int, int],
    actors: ActorsSection,
) -> bytes | None:
    """None if the process died."""
    import ray

    remote = ray.remote(num_cpus=actors.num_cpus, num_gpus=actors.num_gpus, max_retries=0)
    try:
        return ray.get(remote(_schema_of).remote(load, source, splits, window))
    except ray.exceptions.RayTaskError as error:
        raise RunError(f"no sample could be computed: {error.cause or error}") from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        return None


def _schema_of(load: LoadTask, source: Source, splits: list[str], window: tuple[int, int]) -> bytes:
    stages = load()
    task: Any = stages.task
    start, count = window
    answers, reasons = [], []
    for split in splits:
        batch = source.read(json.loads(split))
        few = Batch(batch.rows.slice(start, count))
        few.failures = {
            row - start: why for row, why in batch.failures.items() if start <= row < start + count
        }
        found = stages.answers(few)
        answers += found
        reasons += [f"row {start + row}: {f.error}: {f.message}" for row, f in few.failures.items()]
        if len(answers) >= _ROWS:
            break
    if not answers:
        raise RunError(f"of the first rows none could be computed; {'; '.join(reasons[:3])}")
    declared = task.declared
    if declared.results is not None:
        own = declared.results(task.loaded)
        if own_columns_fit(declared, answers, own):
            return own.with_metadata({"columns": "the task's"}).serialize().to_pybytes()
    return schema_of(answers).serialize().to_pybytes()


def read_schema(data: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(data))
