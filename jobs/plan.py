"""Estimate a job before it runs: its rows, their lengths, what is lost, how long it takes."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from pipemill.actors.arrow_arrays import find_field_values
from pipemill.actors.batch import ROWS_OF
from pipemill.actors.compute.deduplicate import deduplicate_chunks
from pipemill.actors.compute.micro_batches import count_padded_tokens, cut_micro_batches
from pipemill.pipelines.library_settings import keep_settings

from pipemill.errors import RunError, explain_interrupt, explain_missing_library

from .config.check_arguments import check_count, check_positive, check_price, list_texts
from .config.job import Job
from .config.load import build_job
from .config.sections import Sections, takes_sections
from .execution.gpus import recommend_gpu_share
from .measuring.benchmark import Measurement, candidate_budgets, find_best_budget, measure_budget
from .measuring.job_estimate import JobEstimate, TaskEstimate
from .measuring.other_engines import with_engines
from .measuring.run_time import estimate_run_time
from .measuring.trial import Trial, start_trial
from .measuring.worker_pod import estimate_worker_pod
from .output.stored_rows import sample_input
from .planning.find_model import load_failure
from .planning.prepared_job import PreparedJob
from .planning.sampling.sample_rows import sample_rows
from .prepare import prepare_without_output

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Rows of a batch in code that does not look at lengths.
_BATCH = 32
# Rows that are computed to see how many of them each of several tasks gets.
_ROWS_OF_SHARES = 200


@takes_sections
def plan(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None = None,
    *,
    rows: int = 1000,
    seconds: float = 10.0,
    replicas: int | None = None,
    price_per_hour: float | None = None,
    engines: list[str] | None = None,
    settings: list[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    **sections: Unpack[Sections],
) -> JobEstimate:
    """Estimate a job from some of its rows, in this process. Write nothing.

    The other arguments are those of `run`. The job needs no output, and its output is ignored.

    Args:
        rows: How many rows of the input to read.
        seconds: How long to measure each of a few token budgets, at most.
        replicas: How many actors the run will have; None for as many as fit here.
        price_per_hour: What an actor, with its GPU or its CPUs, costs in an hour.
        engines: Other engines to show beside the job's, each with its dtype after a colon if it is
            not the engine's default: ["onnx", "openvino:int8"]. Their answers may differ.

    Returns:
        The estimate: the rows, the seconds and the rows per second of the whole job, and more.

    Raises:
        ConfigError: The job can't run.
        RunError: No row could be computed.
        RunInterrupted: A KeyboardInterrupt, if it was interrupted.
    """
    check_count(rows=rows)
    check_positive(seconds=seconds)
    if replicas is not None:
        check_count(replicas=replicas)
    check_price(price_per_hour)
    others_of = list_texts("engines", engines, "onnx")
    job = build_job(config, settings or [], columns or {}, sections, needs_output=False)
    with explain_interrupt("interrupted"), keep_settings():
        others = with_engines(job, others_of)
        if not job.tasks:
            estimate = _estimate(job, rows, seconds, replicas, price_per_hour)
            beside = {
                name: _estimate(other, rows, seconds, replicas, price_per_hour)
                for name, other in others.items()
            }
            return replace(estimate, engines=beside)
        with sample_input(job) as sample:
            return _estimate_tasks(sample.job, rows, seconds, replicas, price_per_hour)


def _estimate(
    job: Job, rows: int, seconds: float, replicas: int | None, price_per_hour: float | None
) -> JobEstimate:
    trial = start_trial(job, rows)
    fixed = job.batching.max_tokens
    budgets = candidate_budgets(trial) if fixed == "auto" else [fixed]
    measured = [measure_budget(trial, budget, trial.packs, seconds) for budget in budgets]
    best = find_best_budget(measured)
    if best is None:
        raise RunError(f"no row could be computed: {measured[0].problem}")
    setting = next(m for m in measured if m.size == best)
    rate = setting.rows_per_second or 0.0
    run = estimate_run_time(trial, setting, replicas)
    whole = trial.sampled.whole
    section = trial.prepared.job.actors
    gpus, most = section.gpus_each, section.max
    share = None
    if gpus:
        host, device = trial.host_seconds, (setting.seconds or 0.0) - trial.host_seconds
        share = recommend_gpu_share(job.actors, trial.weight_bytes, host=host, device=device)
    if share is not None:
        held = {"num_gpus": share.num_gpus, "num_cpus": share.num_cpus}
        section = section.model_copy(update=held)
    lost, sizes = trial.lost, trial.sizes
    return JobEstimate(
        rows=whole,
        rows_exact=trial.sampled.is_exact,
        sampled=trial.rows.num_rows + trial.failed,
        failed=trial.failed,
        chunks=len(sizes),
        tokens=int(sizes.sum()),
        lengths=count_by_length(trial.row_tokens.astype(np.int64) + lost),
        truncated={"rows": int(np.count_nonzero(lost)), "tokens": int(lost.sum())},
        padding=_count_padding(trial, best),
        duplicates=1 - len(deduplicate_chunks(trial.chunks)[0]) / len(sizes),
        rows_per_second=rate,
        host_share=min(trial.host_seconds / setting.seconds, 1.0) if setting.seconds else 0.0,
        seconds=whole / rate,
        gpu_hours=whole / rate * gpus / 3600 if gpus else None,
        max_tokens=best,
        per_gpu=None if share is None else share.per_gpu,
        actors=None if most == "auto" or most == 1 else most,
        run=run,
        pod=estimate_worker_pod(section, _measure_actor_bytes(setting, gpus)),
        price_per_hour=price_per_hour,
        notes=trial.prepared.notes,
    )


def _estimate_tasks(
    job: Job, rows: int, seconds: float, replicas: int | None, price_per_hour: float | None
) -> JobEstimate:
    """Estimate each of several tasks, and all of them one after the other."""
    prepared = prepare_without_output(job)
    job = prepared.job
    shares, actor_bytes = _compute_few_rows(prepared, min(rows, _ROWS_OF_SHARES))
    each = [_estimate(one, rows, seconds, replicas, price_per_hour) for one in job.each_task()]
    first, run = each[0], each[0].run
    for estimate, share in zip(each[1:], shares[1:], strict=True):
        run = run.followed_by(estimate.run, share)
    rate = 1 / sum(share / one.rows_per_second for one, share in zip(each, shares, strict=True))
    whole = first.rows / rate
    gpus = job.actors.gpus_each
    return replace(
        first,
        rows_per_second=rate,
        seconds=whole,
        gpu_hours=whole * gpus / 3600 if gpus else None,
        per_gpu=None,  # the models lie in a GPU's memory together
        run=run,
        pod=estimate_worker_pod(job.actors, actor_bytes),
        notes=tuple(dict.fromkeys(note for one in each for note in one.notes)),
        tasks=tuple(
            TaskEstimate(
                name=entry.label,
                share=share,
                rows_per_second=one.rows_per_second,
                max_tokens=one.max_tokens,
            )
            for entry, one, share in zip(job.tasks, each, shares, strict=True)
        ),
    )


def _compute_few_rows(prepared: PreparedJob, rows: int) -> tuple[list[float], int]:
    """Return the share of a few rows that each task computes, and the bytes of this process."""
    few = sample_rows(prepared.source, prepared.plan.splits, rows)
    try:
        tasks = prepared.load()
    except Exception as error:
        raise load_failure(error, *prepared.load.models) from error
    with explain_missing_library():
        stats = tasks.process(few.to_batch()).stats
    shares = [stats[ROWS_OF + entry.label] / few.rows.num_rows for entry in prepared.job.tasks]
    return shares, psutil.Process().memory_info().rss


def _measure_actor_bytes(setting: Measurement, gpus: float) -> int:
    """Return what this process takes now, and what computing adds to it on a CPU."""
    grows = 0 if gpus else setting.memory_bytes or 0
    return psutil.Process().memory_info().rss + grows


def count_by_length(tokens: np.ndarray) -> list[tuple[int, int]]:
    """Return (most tokens, rows) of classes that double, from the shortest row to the longest."""
    classes = np.ceil(np.log2(np.maximum(tokens, 1))).astype(int)
    counts = np.bincount(classes)
    return [(2**k, int(counts[k])) for k in range(int(classes.min()), len(counts))]


def _count_padding(trial: Trial, budget: int) -> dict[str, Any]:
    """Return the share of padding of each way to form batches, counted and not measured."""
    sizes = trial.sizes
    in_order = [np.arange(i, min(i + _BATCH, len(sizes))) for i in range(0, len(sizes), _BATCH)]
    groups = find_field_values(trial.chunks, "group")
    ways = {
        f"in batches of {_BATCH}": count_padded_tokens(sizes, in_order),
        "sorted": count_padded_tokens(sizes, cut_micro_batches(sizes, budget, groups)),
    }
    shares: dict[str, Any] = {
        name: round(1 - int(sizes.sum()) / padded, 4) if padded else 0.0
        for name, padded in ways.items()
    }
    return {**shares, "packed": 0.0 if trial.packs else None}
