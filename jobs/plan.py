"""What a job will be: its rows, their lengths, what is lost, and how long it will take."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pipemill.actors.arrow_arrays import field_values
from pipemill.actors.compute.deduplicate import deduplicate_chunks
from pipemill.actors.compute.micro_batches import micro_batches, padded_size

from pipemill.errors import RunError

from .config.job import Job
from .measuring.benchmark import measure_budget
from .measuring.trial import Trial, start_trial
from .tune import best_budget, budgets

_BATCH = 32  # rows of a batch, as one writes it without further thought
_BAR = 40  # characters


@dataclass(frozen=True, kw_only=True)
class JobEstimate:
    """Of a job, from a sample of its rows.

    rows: of the whole input, as far as is known. sampled, failed: rows that were read, and those
        of them that will be dead letters.
    lengths: (most tokens, rows) of each class of rows, by their tokens before any cut.
    truncated: sampled rows that are cut, and the tokens that they lose.
    padding: the share of the computed tokens that is padding: in batches of 32 in the rows' order,
        in sorted micro-batches, and packed (None if the model can't be packed).
    duplicates: share of the sampled chunks that equal one before them.
    notes: on columns that have the name of a parameter.
    rows_per_second: of one actor. seconds, gpu_hours: of the whole on one actor.
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
        """One line."""
        told = asdict(self)
        told |= {k: round(v, 4) for k, v in told.items() if isinstance(v, float)}
        if not self.notes:
            del told["notes"]
        told["recommended"] = {"batching": {"max_tokens": self.max_tokens}}
        return json.dumps(told)

    def __str__(self) -> str:
        lines = [f"{name:<14}{value}" for name, value in self._lines()]
        return "\n".join([*lines, "", "tokens of a row", *self._bars()])

    def _lines(self) -> list[tuple[str, str]]:
        cut, lost = self.truncated["rows"], self.truncated["tokens"]
        padding = [
            f"{'-' if share is None else f'{share:.1%}'} {name}"
            for name, share in self.padding.items()
        ]
        whole = f"{_duration(self.seconds)} on one actor"
        if self.actors:
            whole += f", {_duration(self.seconds / self.actors)} on {self.actors}"
        if self.gpu_hours is not None:
            whole += f", {self.gpu_hours:,.2f} GPU-hours"
        return [
            ("rows", f"{self.rows:,} in all; what follows is of {self.sampled:,} of them"),
            ("dead", f"{self.failed:,}"),
            ("chunks", f"{self.chunks:,} of {self.tokens:,} tokens"),
            ("truncated", f"{cut:,} rows lose {lost:,} tokens"),
            ("duplicates", f"{self.duplicates:.1%} of the chunks (of all rows it may be more)"),
            ("padding", ", ".join(padding)),
            ("speed", f"{self.rows_per_second:,.3g} rows/s"),
            ("the whole", f"{whole}, and the start"),
            ("recommended", f"batching: {{max_tokens: {self.max_tokens}}}"),
            *(("note", note) for note in self.notes),
        ]

    def _bars(self) -> list[str]:
        most = max(count for _, count in self.lengths)
        return [
            f"{f'up to {top:,}':>16} {count:>7,} {'█' * -(-count * _BAR // most)}"
            for top, count in self.lengths
        ]


def estimate(job: Job, rows: int, seconds: float) -> JobEstimate:
    """Computes some of so many rows: for each of a few budgets at most `seconds`. Writes nothing.

    Raises ConfigError for a job that can't run, RunError if no row could be computed.
    """
    trial = start_trial(job, rows)
    fixed = job.batching.max_tokens
    tried = budgets(trial) if fixed == "auto" else [fixed]
    settings = [measure_budget(trial, budget, trial.packs, seconds) for budget in tried]
    best = best_budget(settings)
    if best is None:
        raise RunError(f"no row could be computed: {settings[0].problem}")
    rate = next(s.rows_per_second for s in settings if s.size == best) or 0.0
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
        lengths=histogram(tokens_of_rows(trial)),
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


def tokens_of_rows(trial: Trial) -> np.ndarray:
    """Of all chunks of a row, and what was cut from it."""
    row = np.repeat(np.arange(len(trial.counts)), trial.counts)
    computed = np.bincount(row, weights=trial.sizes, minlength=len(trial.counts))
    return computed.astype(np.int64) + trial.lost


def histogram(tokens: np.ndarray) -> list[tuple[int, int]]:
    """(most tokens, rows), the classes doubling from the shortest row's to the longest's."""
    classes = np.ceil(np.log2(np.maximum(tokens, 1))).astype(int)
    counts = np.bincount(classes)
    return [(2**k, int(counts[k])) for k in range(int(classes.min()), len(counts))]


def _padding(trial: Trial, budget: int) -> dict[str, Any]:
    """Counted, of the chunks as they are computed."""
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


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
