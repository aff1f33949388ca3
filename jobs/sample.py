"""The columns of a task that only its answers show: asked of a sample, and frozen in the plan."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from pipemill.actors.batch import Batch
from pipemill.actors.stages import Stages
from pipemill.actors.worker import Source
from pipemill.pipelines.inferred import own_columns_fit, schema_of
from pipemill.pipelines.load import LoadTask

from .errors import RunError
from .job import ActorsSection
from .plan import Split

_ROWS = 32
_SPLITS = 4


def sampled_schema(
    load: LoadTask, source: Source, splits: list[Split], placement: str, actors: ActorsSection
) -> bytes:
    """Computes a few rows as an actor would, and returns the schema of their answers."""
    few = [split.to_json() for split in splits[:_SPLITS]]
    if placement == "local":
        return _schema_of(load, source, few)
    import ray

    remote = ray.remote(num_cpus=actors.num_cpus, num_gpus=actors.num_gpus, max_retries=0)
    try:
        return ray.get(remote(_schema_of).remote(load, source, few))
    except ray.exceptions.RayTaskError as error:
        raise RunError(f"no sample could be computed: {error.cause or error}") from None


def _schema_of(load: LoadTask, source: Source, splits: list[str]) -> bytes:
    return schema_of_sample(load(), source, splits)


def schema_of_sample(stages: Stages, source: Source, splits: list[str]) -> bytes:
    """The same with a model that is loaded; the splits as workers are told of them."""
    task: Any = stages.task
    answers, reasons = [], []
    for split in splits:
        batch = source.read(json.loads(split))
        few = Batch(batch.rows.slice(0, _ROWS))
        few.failures = {row: f for row, f in batch.failures.items() if row < _ROWS}
        found = stages.answers(few)
        answers += found
        reasons += [f"row {row}: {f.error}: {f.message}" for row, f in few.failures.items()]
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
