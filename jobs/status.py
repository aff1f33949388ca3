"""Report how far an output is, from its ledger alone: `pipemill status`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.split import Split

from .output.dead_letter_reasons import (
    NO_REASONS,
    collect_reasons,
    format_reasons,
    rename_dead_reasons,
)
from .output.lease import find_latest
from .output.ledger import Ledger, open_output
from .output.split_plan import RowEstimate
from .output.text_table import Block, Shown, TextTable, facts


@dataclass(frozen=True, kw_only=True)
class Status(Shown):
    """How far an output is.

    Attributes:
        rows: The input rows accounted for: `done` with a result, and `dead`.
        left: The other rows; an estimate where only reading the input tells (`left_is_estimate`).
        splits, splits_left: The planned splits, and those without a part.
        lease: The run that holds the output, or None. Its `alive` is None where only time tells,
            because it is on another machine.
        dead_reasons, dead_kinds, dead_read: Why rows are dead, as in `Report`.
        each: The number, part, path, rows and dead rows of each split; dead is None until it is
            done.
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
    dead_reasons: list[dict[str, Any]] = field(default_factory=list)
    dead_kinds: int = 0
    dead_read: int = 0
    each: list[dict[str, Any]] = field(repr=False)

    def to_json(self) -> str:
        """Return one line, without the single splits."""
        # Without the splits from the start: there may be 100,000.
        fields = rename_dead_reasons(asdict(replace(self, each=[])))
        del fields["each"]
        return json.dumps(fields)

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        return [facts(self._facts())]

    def _facts(self) -> list[tuple[str, str]]:
        about = "about " if self.left_is_estimate else ""
        lines = [
            ("output", self.output),
            ("task", self.task),
            ("rows", f"{self.rows:,} ({self.done:,} done, {self.dead:,} dead)"),
            (
                "left",
                f"{about}{self.left:,} rows in {self.splits_left:,} of {self.splits:,} splits",
            ),
            ("held by", _describe_lease(self.lease)),
        ]
        reasons = format_reasons(self.dead_reasons, self.dead_kinds, self.dead_read, self.dead)
        names = ["dead letters", *[""] * len(reasons)]
        return [*lines, *zip(names, reasons, strict=False)]

    def table(self) -> TextTable:
        """Return a line per split."""
        rows = []
        for one in self.each:
            counts = ("left", "") if one["dead"] is None else (str(one["rows"]), str(one["dead"]))
            rows.append((str(one["split"]), *counts, one["input"]))
        header = ("split", "rows", "dead", "input")
        return TextTable(header=header, rows=rows, right=frozenset({0, 1, 2}))


def status(
    output: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> Status:
    """Return how far an output is. Needs neither its model nor its input.

    Args:
        output: The folder or URL that a run writes to.
        storage_options: For its filesystem.

    Returns:
        How far the output is.

    Raises:
        ConfigError: The folder is not an output of pipemill.
    """
    ledger, record, plan = open_output(output, storage_options)
    exist = ledger.parts()
    done, left = plan.splits.divide(lambda split: split.part in exist)
    footers = dict(zip(done.numbers, ledger.footers(done), strict=True))
    estimate, each = RowEstimate(plan.splits), []
    for split in plan.splits:
        if footer := footers.get(split.number):
            estimate.see(split, footer.rows)
        each.append(_describe_split(split, footer))
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
        dead_reasons=reasons.dead_letters,
        dead_kinds=reasons.kinds,
        dead_read=reasons.read,
        each=each,
    )


def _describe_split(split: Split, footer: PartFooter | None) -> dict[str, Any]:
    place = f" [{split.start}:{split.stop}]" if split.stop >= 0 else ""
    return {
        "split": split.number,
        "part": split.part,
        "input": f"{split.path}{place}",
        "rows": footer.rows if footer else split.rows,
        "dead": footer.dead if footer else None,
    }


def _lease(ledger: Ledger) -> dict[str, Any] | None:
    number, owner, _ = find_latest(ledger.store)
    if not number or owner is None or owner.released:
        return None
    alive = owner.is_alive()
    return None if alive is False else {**owner.summary(), "alive": alive}


def _describe_lease(lease: dict[str, Any] | None) -> str:
    if lease is None:
        return "nobody"
    who = f"`pipemill {lease['verb']}` of {lease['user']} on {lease['host']}"
    seen = "" if lease["alive"] else f", last seen {lease['seen']} by the clock of that machine"
    return f"{who} (process {lease['pid']}, since {lease['since']}{seen})"
