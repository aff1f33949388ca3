"""What to expect of a job, as `pipemill plan` shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..execution.placement import SINGLE
from ..output.text_table import (
    Block,
    Shown,
    TextTable,
    format_duration,
    format_number,
    make_fact_table,
)

if TYPE_CHECKING:
    from .run_time import RunTime
    from .worker_pod import WorkerPod

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
        rate = format_number(self.rows_per_second)
        batching = f"batching: {{max_tokens: {self.max_tokens}}}"
        return f"{self.share:.1%} of the rows, {rate} rows/s, {batching}"


@dataclass(frozen=True, kw_only=True)
class JobEstimate(Shown):
    """What to expect of a job, estimated from a sample of its rows.

    Attributes:
        rows: The rows of the whole input, as far as is known.
        rows_exact: Whether they are counted; else they are estimated.
        sampled: The rows that were read.
        failed: Those of them that will be dead letters.
        chunks, tokens: What the sampled rows become for the model.
        lengths: (most tokens, rows) of each class of rows, by their tokens before truncation.
        truncated: The sampled `rows` that are truncated, and the `tokens` that they lose.
        padding: The share of the computed tokens that is padding: in batches of 32 in the rows'
            order, in sorted micro-batches, and packed (None if the model can't be packed).
        duplicates: The share of the sampled chunks that equal an earlier one.
        rows_per_second: The speed of one actor.
        host_share: The share of its time in which it prepares rows and shapes answers: an actor of
            a GPU does that while the GPU computes other rows.
        seconds, gpu_hours: What the whole input takes on one actor; no hours without a GPU.
        max_tokens: The fastest token budget.
        per_gpu: How many actors sharing a GPU keep it busy, by the time that each stage took, the
            model's size, the GPU's memory and the CPUs here; None without a GPU.
        actors: The most actors that the job allows; None if it is one, or follows from the cluster.
        run: How long the run takes, its start included: here, or with the actors asked for.
        pod: What a pod of a Ray worker on Kubernetes must have.
        price_per_hour: What an actor costs in an hour.
        notes: On columns that have the name of a parameter.
        tasks: Of a job with several tasks, what is expected of each. The lengths and counts above
            are then those of the first.
        engines: What is expected with other engines, by their names.
    """

    rows: int
    rows_exact: bool
    sampled: int
    failed: int
    chunks: int
    tokens: int
    lengths: list[tuple[int, int]]
    truncated: dict[str, int]
    padding: dict[str, float | None]
    duplicates: float
    rows_per_second: float
    host_share: float
    seconds: float
    gpu_hours: float | None
    max_tokens: int
    per_gpu: int | None
    actors: int | None
    run: RunTime
    pod: WorkerPod
    price_per_hour: float | None = None
    notes: tuple[str, ...] = ()
    tasks: tuple[TaskEstimate, ...] = ()
    engines: Mapping[str, JobEstimate] = field(default_factory=dict)

    @property
    def cost(self) -> tuple[float, float] | None:
        """Return the least and the most that the run costs; None without a price."""
        if self.price_per_hour is None:
            return None
        hourly = self.price_per_hour * self.run.actors / 3600
        return self.run.least * hourly, self.run.most * hourly

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(self._list_fields())

    def _list_fields(self) -> dict[str, Any]:
        fields = asdict(self)
        fields |= {k: round(v, 4) for k, v in fields.items() if isinstance(v, float)}
        fields["run"] = {
            k: round(v, 1) if isinstance(v, float) else v for k, v in fields["run"].items()
        }
        fields["engines"] = {name: other._list_fields() for name, other in self.engines.items()}
        for name in ("notes", "tasks", "engines"):
            if not fields[name]:
                del fields[name]
        if self.cost is None:
            del fields["price_per_hour"]
        else:
            fields["cost"] = [round(bound, 4) for bound in self.cost]
        fields["pod"] = self.pod.to_manifest()
        fields["recommended"] = self._recommend_settings()
        del fields["per_gpu"]
        return fields

    def _recommend_settings(self) -> dict[str, dict[str, int]]:
        """Return settings for the config, by section."""
        sections = {"batching": {"max_tokens": self.max_tokens}}
        return (
            sections if self.per_gpu is None else sections | {"actors": {"per_gpu": self.per_gpu}}
        )

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        return [make_fact_table(self._list_facts()), "", "tokens of a row", self._make_histogram()]

    def _list_facts(self) -> list[tuple[str, str]]:
        cut, lost = self.truncated["rows"], self.truncated["tokens"]
        padding = [
            f"{'-' if share is None else f'{share:.1%}'} {name}"
            for name, share in self.padding.items()
        ]
        whole = f"{format_duration(self.seconds)} on one actor"
        rows = f"{self.rows:,}" if self.rows_exact else f"about {self.rows:,}"
        if self.gpu_hours is not None:
            whole += f", {self.gpu_hours:,.2f} GPU-hours"
        return [
            ("rows", f"{rows} in all; the figures below are from {self.sampled:,} of them"),
            ("dead", f"{self.failed:,}"),
            ("chunks", f"{self.chunks:,} of {self.tokens:,} tokens"),
            ("truncated", f"{cut:,} rows lose {lost:,} tokens"),
            ("duplicates", f"{self.duplicates:.1%} of the chunks (more is possible in all rows)"),
            ("padding", ", ".join(padding)),
            ("speed", f"{format_number(self.rows_per_second)} rows/s"),
            ("stages", f"model {1 - self.host_share:.0%}, rows and answers {self.host_share:.0%}"),
            ("work", whole),
            *((task.name, str(task)) for task in self.tasks),
            ("run", self._run_in_words()),
            ("worker's pod", str(self.pod)),
            *([("cost", _describe_cost(*self.cost))] if self.cost else []),
            *((f"with {name}", other._summarize_engine()) for name, other in self.engines.items()),
            *(("recommended", line) for line in self._describe_recommended()),
            *(("note", note) for note in self.notes),
        ]

    def _describe_recommended(self) -> list[str]:
        return [
            f"{section}: {{{', '.join(f'{name}: {value}' for name, value in settings.items())}}}"
            for section, settings in self._recommend_settings().items()
        ]

    def _summarize_engine(self) -> str:
        """Return what is expected with an engine beside the job's."""
        run, rate = self.run, format_number(self.rows_per_second)
        text = (
            f"{rate} rows/s, a run of about {format_duration(run.expected)} "
            f"({format_duration(run.least)} to {format_duration(run.most)})"
        )
        return f"{text}, cost {_describe_cost(*self.cost)}" if self.cost else text

    def _run_in_words(self) -> str:
        run = self.run
        how = "one process, without Ray" if run.placement == SINGLE else f"{run.actors} actors"
        if run.actors == 1 and run.placement != SINGLE:
            how = "one actor"
        return (
            f"about {format_duration(run.expected)} ({format_duration(run.least)} to "
            f"{format_duration(run.most)}), {format_duration(run.start)} of it the start; {how}"
        )

    def _make_histogram(self) -> TextTable:
        most = max(count for _, count in self.lengths)
        rows = [
            (f"up to {top:,}", f"{count:,}", "█" * -(-count * _BAR // most))
            for top, count in self.lengths
        ]
        return TextTable(rows=rows, right=frozenset({0, 1}), widths=(14, 7))


def _describe_cost(least: float, most: float) -> str:
    digits = ",.2f" if least >= 1 else ".2g"
    return f"{least:{digits}} to {most:{digits}}"
