"""Report how far an output is, from its ledger alone: `pipemill status`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import json
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, overload

from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.split import Split
from pipemill.actors.split_table import SplitTable

from .output.dead_letter_reasons import (
    NO_REASONS,
    collect_reasons,
    format_reasons,
    rename_dead_reasons,
)
from .output.lease import find_latest
from .output.ledger import Ledger, open_output
from .output.split_plan import RowEstimate
from .output.text_table import Block, Shown, TextTable, make_fact_table

_NOT_DONE = -1


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
        each: The number, part, path, rows and dead rows of each split, a sequence; dead is None
            until it is done.
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
    each: Sequence[dict[str, Any]] = field(repr=False)

    def to_json(self) -> str:
        """Return one line, without the single splits."""
        # Without the splits from the start: there may be 100,000.
        fields = rename_dead_reasons(asdict(replace(self, each=[])))
        del fields["each"]
        return json.dumps(fields)

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        return [make_fact_table(self._list_facts())]

    def _list_facts(self) -> list[tuple[str, str]]:
        count = f"about {self.left:,}" if self.left_is_estimate else f"{self.left:,}"
        if self.left_is_estimate and not self.left:  # nothing was read to estimate them from
            count = "an unknown number of"
        lines = [
            ("output", self.output),
            ("task", self.task),
            ("rows", f"{self.rows:,} ({self.done:,} done, {self.dead:,} dead)"),
            (
                "left",
                f"{count} rows in {self.splits_left:,} of {self.splits:,} splits",
            ),
            ("held by", describe_lease(self.lease)),
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
    each, estimate = _SplitStates(plan.splits), RowEstimate(plan.splits)
    rows = dead = 0
    for split, footer in zip(done, ledger.footers(done), strict=True):
        each.see(split, footer)
        estimate.see(split, footer.rows)
        rows, dead = rows + footer.rows, dead + footer.dead
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
        lease=read_lease(ledger),
        dead_reasons=reasons.dead_letters,
        dead_kinds=reasons.kinds,
        dead_read=reasons.read,
        each=each,
    )


class _SplitStates(Sequence[dict[str, Any]]):
    """What became of each split, made when it is asked for: there may be millions."""

    def __init__(self, splits: SplitTable) -> None:
        self._splits = splits
        self._rows, self._dead = (array("q", [_NOT_DONE]) * len(splits) for _ in range(2))

    def see(self, split: Split, footer: PartFooter) -> None:
        """Note what is in the part of a split."""
        self._rows[split.number], self._dead[split.number] = footer.rows, footer.dead

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __len__(self) -> int:
        return len(self._splits)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self._describe(split) for split in self._splits[place]]
        return self._describe(self._splits[place])

    def _describe(self, split: Split) -> dict[str, Any]:
        rows, dead = self._rows[split.number], self._dead[split.number]
        return {
            "split": split.number,
            "part": split.part,
            "input": split.place,
            "rows": split.rows if rows == _NOT_DONE else rows,
            "dead": None if dead == _NOT_DONE else dead,
        }


def read_lease(ledger: Ledger) -> dict[str, Any] | None:
    """Return who holds the output; None if nobody does, or its process is known to have ended."""
    number, owner, _ = find_latest(ledger.store)
    if not number or owner is None or owner.released:
        return None
    alive = owner.is_alive()
    return None if alive is False else {**owner.summary(), "alive": alive}


def describe_lease(lease: dict[str, Any] | None) -> str:
    """Return who holds the output, in words."""
    if lease is None:
        return "nobody"
    who = f"`pipemill {lease['verb']}` of {lease['user']} on {lease['host']}"
    seen = "" if lease["alive"] else f", last seen {lease['seen']} by the clock of that machine"
    return f"{who} (process {lease['pid']}, since {lease['since']}{seen})"
