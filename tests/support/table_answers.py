"""A text task over an Arrow table whose columns a test names itself."""

from __future__ import annotations

import json
from functools import lru_cache, partial

import pyarrow as pa
from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import row_by_row

assert_same = partial(row_by_row.assert_same, close=1e-5)


@lru_cache(maxsize=32)
def _loaded(load: LoadTask) -> Stages:
    return load()


def load(models, task, parameters=None, columns=None, max_tokens=256, weights=True) -> Stages:
    wanted = LoadTask(
        task=task,
        model=Model(path=models[task]),
        columns=tuple((columns or {"text": "body"}).items()),
        parameters=json.dumps(parameters or {}),
        max_tokens=max_tokens,
        weights=weights,
    )
    return _loaded(wanted)


def answers(models, task, rows: pa.Table, parameters=None, columns=None, max_tokens=256) -> Batch:
    """The results, after checking that the staged way gives the same."""
    full = load(models, task, parameters, columns, max_tokens)
    light = load(models, task, parameters, columns, max_tokens, weights=False)
    batch = full.process(Batch(rows))
    staged = light.expand(Batch(rows))
    staged = full.forward(Batch.from_bytes(staged.to_bytes()))
    staged = light.regroup(Batch.from_bytes(staged.to_bytes()))
    assert staged.results.schema.equals(batch.results.schema)
    assert_same(staged.results.to_pylist(), batch.results.to_pylist())
    assert staged.failures == batch.failures
    return batch
