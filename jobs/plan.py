"""Estimate a job before it runs: its rows, their lengths, what is lost, how long it takes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pipemill.actors.arrow_arrays import field_values
from pipemill.actors.compute.deduplicate import deduplicate_chunks
from pipemill.actors.compute.micro_batches import micro_batches, padded_size

from pipemill.errors import RunError, explain_interrupt

from .config.job import Job
from .config.load import build_job, check_positive
from .config.sections import Sections, takes_sections
from .measuring.benchmark import candidate_budgets, find_best_budget, measure_budget
from .measuring.trial import Trial, start_trial
from .output.text_table import Block, Shown, TextTable, facts, format_duration

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Rows of a batch in code that does not look at lengths.
_BATCH = 32
# Characters of the longest bar.
_BAR = 40


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
        notes: On columns that have the name of a parameter.
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
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return one line."""
        fields = asdict(self)
        fields |= {k: round(v, 4) for k, v in fields.items() if isinstance(v, float)}
        if not self.notes:
            del fields["notes"]
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
        if self.actors:
            whole += f", {format_duration(self.seconds / self.actors)} on {self.actors}"
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
            ("whole job", f"{whole}, plus the start"),
            ("recommended", f"batching: {{max_tokens: {self.max_tokens}}}"),
            *(("note", note) for note in self.notes),
        ]

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
    settings: list[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    **sections: Unpack[Sections],
) -> JobEstimate:
    """Estimate a job from some of its rows, in this process. Write nothing.

    The other arguments are those of `run`. The job needs no output, and its output is ignored.

    Args:
        rows: How many rows of the input to read.
        seconds: How long to measure each of a few token budgets, at most.

    Returns:
        The estimate: the rows, the seconds and the rows per second of the whole job, and more.

    Raises:
        ConfigError: The job can't run.
        RunError: No row could be computed.
        RunInterrupted: A KeyboardInterrupt, if it was interrupted.
    """
    check_positive(rows=rows, seconds=seconds)
    job = build_job(config, settings or [], columns or {}, sections, needs_output=False)
    with explain_interrupt("interrupted"):
        return _estimate(job, rows, seconds)


def _estimate(job: Job, rows: int, seconds: float) -> JobEstimate:
    trial = start_trial(job, rows)
    fixed = job.batching.max_tokens
    budgets = candidate_budgets(trial) if fixed == "auto" else [fixed]
    measured = [measure_budget(trial, budget, trial.packs, seconds) for budget in budgets]
    best = find_best_budget(measured)
    if best is None:
        raise RunError(f"no row could be computed: {measured[0].problem}")
    rate = next(m.rows_per_second for m in measured if m.size == best) or 0.0
    whole = trial.sampled.whole
    actors = trial.prepared.job.actors
    gpus, most = actors.gpus_each, actors.max
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
        notes=trial.prepared.notes,
    )


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
