"""Estimate a job before it runs: its rows, their lengths, what is lost, how long it takes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from pipemill.actors.arrow_arrays import field_values
from pipemill.actors.batch import ROWS_OF, Batch
from pipemill.actors.compute.deduplicate import deduplicate_chunks
from pipemill.actors.compute.micro_batches import micro_batches, padded_size

from pipemill.errors import RunError, explain_interrupt, explain_missing_library

from .config.job import Job
from .config.load import build_job, check_positive
from .config.sections import Sections, takes_sections
from .execution.placement import SINGLE
from .measuring.benchmark import Measurement, candidate_budgets, find_best_budget, measure_budget
from .measuring.run_time import RunTime, estimate_run_time
from .measuring.trial import Trial, start_trial
from .measuring.worker_pod import WorkerPod, estimate_worker_pod
from .output.stored_rows import sample_input
from .output.text_table import Block, Shown, TextTable, facts, format_duration
from .planning.find_model import load_failure
from .planning.prepared_job import PreparedJob
from .planning.sample_rows import sample_rows
from .prepare import prepare_without_output

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Rows of a batch in code that does not look at lengths.
_BATCH = 32
# Rows that are computed to see how many of them each of several tasks gets.
_ROWS_OF_SHARES = 200
# Characters of the longest bar.
_BAR = 40


@dataclass(frozen=True, kw_only=True)
class TaskEstimate:
    """What to expect of one of several tasks.

    Attributes:
        name: The task.
        share: The share of the sampled rows that it computes: its condition is true for them.
        rows_per_second: The speed of one actor at these rows.
        max_tokens: The fastest token budget.
    """

    name: str
    share: float
    rows_per_second: float
    max_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of the rows, {self.rows_per_second:,.3g} rows/s, batching: "
            f"{{max_tokens: {self.max_tokens}}}"
        )


@dataclass(frozen=True, kw_only=True)
class JobEstimate(Shown):
    """What to expect of a job, estimated from a sample of its rows.

    Attributes:
        rows: The rows of the whole input, as far as is known.
        sampled: The rows that were read.
        failed: Those of them that will be dead letters.
        chunks, tokens: What the sampled rows become for the model.
        lengths: (most tokens, rows) of each class of rows, by their tokens before truncation.
        truncated: The sampled `rows` that are truncated, and the `tokens` that they lose.
        padding: The share of the computed tokens that is padding: in batches of 32 in the rows'
            order, in sorted micro-batches, and packed (None if the model can't be packed).
        duplicates: The share of the sampled chunks that equal an earlier one.
        rows_per_second: The speed of one actor.
        seconds, gpu_hours: What the whole input takes on one actor; no hours without a GPU.
        max_tokens: The fastest token budget.
        actors: The most actors that the job allows; None if it is one, or follows from the cluster.
        run: How long the run takes, its start included: here, or with the actors asked for.
        pod: What a pod of a Ray worker on Kubernetes must have.
        price_per_hour: What an actor costs in an hour.
        notes: On columns that have the name of a parameter.
        tasks: Of a job with several tasks, what is expected of each. The lengths and counts above
            are then those of the first.
    """

    rows: int
    sampled: int
    failed: int
    chunks: int
    tokens: int
    lengths: list[tuple[int, int]]
    truncated: dict[str, int]
    padding: dict[str, float | None]
    duplicates: float
    rows_per_second: float
    seconds: float
    gpu_hours: float | None
    max_tokens: int
    actors: int | None
    run: RunTime
    pod: WorkerPod
    price_per_hour: float | None = None
    notes: tuple[str, ...] = ()
    tasks: tuple[TaskEstimate, ...] = ()

    @property
    def cost(self) -> tuple[float, float] | None:
        """Return the least and the most that the run costs; None without a price."""
        if self.price_per_hour is None:
            return None
        hourly = self.price_per_hour * self.run.actors / 3600
        return self.run.least * hourly, self.run.most * hourly

    def to_json(self) -> str:
        """Return one line."""
        fields = asdict(self)
        fields |= {k: round(v, 4) for k, v in fields.items() if isinstance(v, float)}
        fields["run"] = {
            k: round(v, 1) if isinstance(v, float) else v for k, v in fields["run"].items()
        }
        for name in ("notes", "tasks"):
            if not fields[name]:
                del fields[name]
        if self.cost is None:
            del fields["price_per_hour"]
        else:
            fields["cost"] = [round(bound, 4) for bound in self.cost]
        fields["pod"] = self.pod.to_manifest()
        fields["recommended"] = {"batching": {"max_tokens": self.max_tokens}}
        return json.dumps(fields)

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        return [facts(self._facts()), "", "tokens of a row", self._histogram()]

    def _facts(self) -> list[tuple[str, str]]:
        cut, lost = self.truncated["rows"], self.truncated["tokens"]
        padding = [
            f"{'-' if share is None else f'{share:.1%}'} {name}"
            for name, share in self.padding.items()
        ]
        whole = f"{format_duration(self.seconds)} on one actor"
        if self.gpu_hours is not None:
            whole += f", {self.gpu_hours:,.2f} GPU-hours"
        return [
            ("rows", f"{self.rows:,} in all; the figures below are from {self.sampled:,} of them"),
            ("dead", f"{self.failed:,}"),
            ("chunks", f"{self.chunks:,} of {self.tokens:,} tokens"),
            ("truncated", f"{cut:,} rows lose {lost:,} tokens"),
            ("duplicates", f"{self.duplicates:.1%} of the chunks (more is possible in all rows)"),
            ("padding", ", ".join(padding)),
            ("speed", f"{self.rows_per_second:,.3g} rows/s"),
            ("work", whole),
            *((task.name, str(task)) for task in self.tasks),
            ("run", self._run_in_words()),
            ("worker's pod", str(self.pod)),
            *([("cost", _cost_in_words(*self.cost))] if self.cost else []),
            ("recommended", f"batching: {{max_tokens: {self.max_tokens}}}"),
            *(("note", note) for note in self.notes),
        ]

    def _run_in_words(self) -> str:
        run = self.run
        how = "one process, without Ray" if run.placement == SINGLE else f"{run.actors} actors"
        if run.actors == 1 and run.placement != SINGLE:
            how = "one actor"
        return (
            f"about {format_duration(run.expected)} ({format_duration(run.least)} to "
            f"{format_duration(run.most)}), {format_duration(run.start)} of it the start; {how}"
        )

    def _histogram(self) -> TextTable:
        most = max(count for _, count in self.lengths)
        rows = [
            (f"up to {top:,}", f"{count:,}", "█" * -(-count * _BAR // most))
            for top, count in self.lengths
        ]
        return TextTable(rows=rows, right=frozenset({0, 1}), widths=(14, 7))


@takes_sections
def plan(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None = None,
    *,
    rows: int = 1000,
    seconds: float = 10.0,
    replicas: int | None = None,
    price_per_hour: float | None = None,
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

    Returns:
        The estimate: the rows, the seconds and the rows per second of the whole job, and more.

    Raises:
        ConfigError: The job can't run.
        RunError: No row could be computed.
        RunInterrupted: A KeyboardInterrupt, if it was interrupted.
    """
    check_positive(rows=rows, seconds=seconds)
    if replicas is not None:
        check_positive(replicas=replicas)
    if price_per_hour is not None:
        check_positive(price_per_hour=price_per_hour)
    job = build_job(config, settings or [], columns or {}, sections, needs_output=False)
    with explain_interrupt("interrupted"):
        if not job.tasks:
            return _estimate(job, rows, seconds, replicas, price_per_hour)
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
    lost, sizes = trial.lost, trial.sizes
    return JobEstimate(
        rows=whole,
        sampled=trial.rows.num_rows + trial.failed,
        failed=trial.failed,
        chunks=len(sizes),
        tokens=int(sizes.sum()),
        lengths=count_by_length(count_row_tokens(trial)),
        truncated={"rows": int(np.count_nonzero(lost)), "tokens": int(lost.sum())},
        padding=_padding(trial, best),
        duplicates=1 - len(deduplicate_chunks(trial.chunks)[0]) / len(sizes),
        rows_per_second=rate,
        seconds=whole / rate,
        gpu_hours=whole / rate * gpus / 3600 if gpus else None,
        max_tokens=best,
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
    few = sample_rows(prepared.source, prepared.plan.splits, rows).rows
    try:
        tasks = prepared.load()
    except Exception as error:
        raise load_failure(error, *prepared.load.models) from error
    with explain_missing_library():
        stats = tasks.process(Batch(few)).stats
    shares = [stats[ROWS_OF + entry.label] / few.num_rows for entry in prepared.job.tasks]
    return shares, psutil.Process().memory_info().rss


def _measure_actor_bytes(setting: Measurement, gpus: float) -> int:
    """Return what this process takes now, and what computing adds to it on a CPU."""
    grows = 0 if gpus else setting.memory_bytes or 0
    return psutil.Process().memory_info().rss + grows


def _cost_in_words(least: float, most: float) -> str:
    digits = ",.2f" if least >= 1 else ".2g"
    return f"{least:{digits}} to {most:{digits}}"


def count_row_tokens(trial: Trial) -> np.ndarray:
    """Return each row's tokens: those of its chunks, and those that were truncated."""
    row = np.repeat(np.arange(len(trial.counts)), trial.counts)
    computed = np.bincount(row, weights=trial.sizes, minlength=len(trial.counts))
    return computed.astype(np.int64) + trial.lost


def count_by_length(tokens: np.ndarray) -> list[tuple[int, int]]:
    """Return (most tokens, rows) of classes that double, from the shortest row to the longest."""
    classes = np.ceil(np.log2(np.maximum(tokens, 1))).astype(int)
    counts = np.bincount(classes)
    return [(2**k, int(counts[k])) for k in range(int(classes.min()), len(counts))]


def _padding(trial: Trial, budget: int) -> dict[str, Any]:
    """Return the share of padding of each way to form batches, counted and not measured."""
    sizes = trial.sizes
    in_order = [np.arange(i, min(i + _BATCH, len(sizes))) for i in range(0, len(sizes), _BATCH)]
    chunks = trial.chunks
    groups = field_values(chunks, "group") if chunks.type.get_field_index("group") >= 0 else None
    ways = {
        f"in batches of {_BATCH}": padded_size(sizes, in_order),
        "sorted": padded_size(sizes, micro_batches(sizes, budget, groups)),
    }
    shares: dict[str, Any] = {
        name: round(1 - int(sizes.sum()) / padded, 4) for name, padded in ways.items()
    }
    return {**shares, "packed": 0.0 if trial.packs else None}
