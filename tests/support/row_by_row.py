"""Rows through a task, with micro-batches of every size; and staged."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.media import MediaAccess

BUDGETS = (1, 80, 1_000_000)


@lru_cache(maxsize=32)
def _loaded(load: LoadTask) -> Stages:
    return load()


def run(
    task: str,
    model: str,
    columns: dict[str, Any],
    parameters: dict[str, Any] | None = None,
    roots: tuple[str, ...] = (),
    budgets: tuple[int, ...] = BUDGETS,
    close: float = 1e-4,
) -> Batch:
    """The rows' results, after checking that each budget, and the staged way, give the same.

    close: how far numbers may be apart.
    """
    rows = pa.table({f"my_{name}": values for name, values in columns.items()})
    load = {
        "task": task,
        "model": Model(path=str(model)),
        "columns": tuple((name, f"my_{name}") for name in columns),
        "parameters": json.dumps(parameters or {}),
        "media": MediaAccess(roots=roots),
    }
    full = _loaded(LoadTask(**load, max_tokens=1))
    light = _loaded(LoadTask(**load, weights=False))
    expanded = light.expand(Batch(rows)).to_bytes()
    batches = []
    for budget in budgets:
        whole = Stages(full.task, full.columns, TokenBudget(budget))
        batches.append(whole.process(Batch(rows)))
    # Once: what travels between the stages is the same for all budgets.
    staged = whole.forward(Batch.from_bytes(expanded))
    batches.append(light.regroup(Batch.from_bytes(staged.to_bytes())))
    first = batches[0].results.to_pylist()
    for batch in batches[1:]:
        assert batch.results.schema.equals(batches[0].results.schema)
        assert_same(batch.results.to_pylist(), first, close)
        assert batch.failures == batches[0].failures
    return batches[0]


def assert_same(got: Any, expected: Any, close: float = 1e-4) -> None:
    """Equal up to `close` in numbers, and exactly in everything else."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key in expected:
            assert_same(got[key], expected[key], close)
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other, close)
    elif isinstance(expected, float | np.floating):
        assert got == pytest.approx(float(expected), abs=close)
    else:
        assert got == expected


def assert_rows(batch: Batch, expected: list[Any], different: int = 3) -> None:
    """Each row has its columns, or failed in the stage that stands in their place.

    different: how many of the expected answers must differ, to show a swapped one.
    """
    failed = {row: stage for row, stage in enumerate(expected) if isinstance(stage, str)}
    assert {row: failure.stage for row, failure in batch.failures.items()} == failed
    for row, (got, truth) in enumerate(zip(batch.results.to_pylist(), expected, strict=True)):
        if row in failed:
            assert set(got.values()) == {None}
        else:
            assert_same(got, truth)
    assert len({str(truth) for truth in expected}) >= different
