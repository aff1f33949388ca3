"""`pipemill status`: what the ledger of an output says. Needs no model and no input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipemill.actors.output.layout import JOB, PLAN
from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.split import Split
from pipemill.actors.storage.filesystem import absolute
from pipemill.actors.storage.store import Store

from pipemill.errors import ConfigError

from .output.dead_letter_reasons import NO_REASONS, collect_reasons, format_reasons
from .output.job_record import JobRecord
from .output.lease import find_latest
from .output.ledger import Ledger
from .output.split_plan import Plan, RowEstimate


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far an output is.

    rows: input rows accounted for: done (with a result) and dead. left: rows that are not, an
        estimate where only reading the input tells (`left_is_estimate`).
    splits, splits_left: all that are planned, and those without a part.
    lease: the run that holds the output, None if none does; its `alive` is None where only time
        would tell, because it is on another machine.
    dead_letters, dead_kinds, dead_read: why rows are dead, as in `Report`.
    each: per split its number, part, path, rows, and dead; None where it is not done.
    """

    output: str
    task: str
    rows: int
    done: int
    dead: int
    left: int
    left_is_estimate: bool
    splits: int
    splits_left: int
    lease: dict[str, Any] | None
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    dead_kinds: int = 0
    dead_read: int = 0
    each: list[dict[str, Any]] = field(repr=False)

    def to_json(self) -> str:
        """One line, without the single splits."""
        fields = asdict(self)
        del fields["each"]
        return json.dumps(fields)

    def __str__(self) -> str:
        about = "about " if self.left_is_estimate else ""
        lines = [
            ("output", self.output),
            ("task", self.task),
            ("rows", f"{self.rows:,} ({self.done:,} done, {self.dead:,} dead)"),
            (
                "left",
                f"{about}{self.left:,} rows in {self.splits_left:,} of {self.splits:,} splits",
            ),
            ("held by", _in_words(self.lease)),
        ]
        told = format_reasons(self.dead_letters, self.dead_kinds, self.dead_read, self.dead)
        names = ["dead letters", *[""] * len(told)]
        lines += list(zip(names, told, strict=False))
        return "\n".join(f"{name:<14}{value}" for name, value in lines)

    def table(self) -> str:
        """A line per split."""
        lines = [f"{'split':>6} {'rows':>9} {'dead':>7}  input"]
        for one in self.each:
            rows, dead = ("left", "") if one["dead"] is None else (one["rows"], one["dead"])
            lines.append(f"{one['split']:>6} {rows:>9} {dead:>7}  {one['input']}")
        return "\n".join(lines)


def status(output: str, *, storage_options: Mapping[str, Any] | None = None) -> Status:
    """What the ledger of an output says. Raises ConfigError if it is none of pipemill's."""
    ledger, record, plan = open_output(output, storage_options)
    exist = ledger.parts()
    done = [split for split in plan.splits if split.part in exist]
    left = [split for split in plan.splits if split.part not in exist]
    footers = dict(zip((s.number for s in done), ledger.footers(done), strict=True))
    estimate = RowEstimate(plan.splits)
    for split in done:
        estimate.see(split, footers[split.number].rows)
    rows = sum(footer.rows for footer in footers.values())
    dead = sum(footer.dead for footer in footers.values())
    reasons = collect_reasons(ledger, plan) if dead else NO_REASONS
    return Status(
        output=ledger.path,
        task=record.task,
        rows=rows,
        done=rows - dead,
        dead=dead,
        left=max(estimate.total() - rows, 0) if left else 0,
        left_is_estimate=any(split.rows is None for split in left),
        splits=len(plan.splits),
        splits_left=len(left),
        lease=_lease(ledger),
        dead_letters=reasons.dead_letters,
        dead_kinds=reasons.kinds,
        dead_read=reasons.read,
        each=[_line(split, footers.get(split.number)) for split in plan.splits],
    )


def open_output(output: str, options: Mapping[str, Any] | None) -> tuple[Ledger, JobRecord, Plan]:
    """An output with its job and plan. Raises ConfigError if it has none."""
    ledger = Ledger(Store(absolute(output), options or {}))
    record, plan = ledger.read_job(), ledger.read_plan()
    if record is None or plan is None:
        raise ConfigError(
            f"{output} is no output of pipemill: {JOB} and {PLAN} are not "
            "there. Name the folder that a run wrote to"
        )
    return ledger, record, plan


def _line(split: Split, footer: PartFooter | None) -> dict[str, Any]:
    place = f" [{split.start}:{split.stop}]" if split.stop >= 0 else ""
    return {
        "split": split.number,
        "part": split.part,
        "input": f"{split.path}{place}",
        "rows": footer.rows if footer else split.rows,
        "dead": footer.dead if footer else None,
    }


def _lease(ledger: Ledger) -> dict[str, Any] | None:
    number, holder, _ = find_latest(ledger.store)
    if not number or holder is None or holder.released:
        return None
    lives = holder.lives()
    return None if lives is False else {**holder.summary(), "alive": lives}


def _in_words(lease: dict[str, Any] | None) -> str:
    if lease is None:
        return "nobody"
    who = f"`pipemill {lease['verb']}` of {lease['user']} on {lease['host']}"
    seen = "" if lease["alive"] else f", last seen {lease['seen']} by its own clock"
    return f"{who} (process {lease['pid']}, since {lease['since']}{seen})"
