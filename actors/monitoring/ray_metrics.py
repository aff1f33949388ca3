"""Record metrics with Ray, which exports them at each node's `MetricsExportPort`.

Without a Ray that this process is connected to, nothing is recorded. A Ray without the libraries
of `ray[default]` takes the values and exports none.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from ..split_result import SplitResult
from .metrics import (
    BUDGET_TOKENS,
    CHUNKS,
    DEAD_LETTERS,
    DEVICE_BUSY,
    ETA_SECONDS,
    OOM_SHRINKS,
    ROWS,
    SPLITS,
    STAGE_SECONDS,
    TOKENS,
    Metric,
)
from .ray_connection import find_connected_ray

STAGES = ("read", "expand", "forward", "regroup", "write")


def record_split(result: SplitResult, job: str, task: str) -> None:
    """Record what became of a split. See `record_rows`."""
    if result.rows is not None:
        record_rows(result.rows, result.work, result.reasons, job, task)


def record_rows(
    rows: int, work: Mapping[str, float], reasons: Mapping[str, int], job: str, task: str
) -> None:
    """Record what became of rows.

    Args:
        work: what was counted and measured, as in `Batch.stats`.
        reasons: how many of the rows failed, by the stage and the class of the error.
        job: the short name of the output, or of a pipeline of Ray Data.
        task: the task's name.
    """
    if find_connected_ray() is None:
        return
    dead, tokens = sum(reasons.values()), work.get("tokens", 0)
    _add(ROWS, rows - dead, job=job, task=task, outcome="done")
    _add(ROWS, dead, job=job, task=task, outcome="dead")
    _add(TOKENS, tokens, job=job, kind="real")
    _add(TOKENS, work.get("padded_tokens", 0) - tokens, job=job, kind="padding")
    _add(CHUNKS, work.get("chunks", 0), job=job)
    _add(DEVICE_BUSY, work.get("forward_seconds", 0), job=job)
    _add(OOM_SHRINKS, work.get("out_of_memory", 0), job=job)
    for reason, count in reasons.items():
        _add(DEAD_LETTERS, count, job=job, reason=reason)
    for stage in STAGES:
        if (seconds := work.get(f"{stage}_seconds")) is not None:
            _record(STAGE_SECONDS, seconds, job=job, stage=stage)
    for name in work:
        if name.startswith("budget_"):
            _record(BUDGET_TOKENS, int(name.removeprefix("budget_")), job=job)


def record_progress(job: str, splits: dict[str, int], eta_seconds: float | None) -> None:
    """Record how far a run is.

    Args:
        splits: how many there are in each state.
        eta_seconds: until its end; None if unknown.
    """
    if find_connected_ray() is None:
        return
    for state, count in splits.items():
        _record(SPLITS, count, job=job, state=state)
    if eta_seconds is not None:
        _record(ETA_SECONDS, eta_seconds, job=job)


def _add(metric: Metric, amount: float, **labels: str) -> None:
    if amount > 0:
        _record(metric, amount, **labels)


def _record(metric: Metric, value: float, **labels: str) -> None:
    with suppress(Exception):  # no row depends on it
        _instrument(metric)(value, labels)


@cache
def _instrument(metric: Metric) -> Any:
    """Return Ray's function that records a value with labels."""
    from ray.util import metrics

    if metric.kind == "counter":
        return metrics.Counter(metric.name, metric.help, metric.labels).inc
    if metric.kind == "gauge":
        return metrics.Gauge(metric.name, metric.help, metric.labels).set
    buckets = list(metric.buckets)
    return metrics.Histogram(metric.name, metric.help, buckets, metric.labels).observe
