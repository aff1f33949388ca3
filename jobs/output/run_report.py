"""The report of a run: counts over the whole output, and what the run added."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipemill.actors.batch import ROWS_OF, left_out

from .dead_letter_reasons import (
    NO_REASONS,
    Reasons,
    collect_reasons,
    format_reasons,
    rename_dead_reasons,
)
from .ledger import Ledger
from .read_output import read
from .split_plan import Plan
from .text_table import Block, Shown, format_count, make_fact_table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as ds

_FILES = 5  # that are named


@dataclass(frozen=True, kw_only=True)
class Report(Shown):
    """Counts over the whole output, and beside them what this run added.

    What this run measured (`padding`, `packed`, `repeated`, `max_tokens`, `device_busy`) is None if
    it computed nothing. The JSON leaves out `notes`, `truncated`, `left_out` and `published` if
    there are none.

    Attributes:
        rows: The input rows accounted for.
        done: Those with a result.
        dead: The dead letters.
        seconds: What this run took, its start included.
        rows_per_second: The rows that this run added in that time.
        output: The output's path or URL.
        splits: The planned splits.
        added: The rows, done, dead and splits of this run.
        padding: The share of the forward passes' tokens that was padding.
        packed: The share of the real tokens that ran in one stream, without padding.
        repeated: The chunks not computed because an equal one of their split was.
        max_tokens: The budget that most splits had settled for; None if none had yet.
        device_busy: The share of the actors' time, from loaded to the last forward pass, in which
            one ran.
        truncated: The `rows` whose text was cut, and the `tokens` that they lost.
        left_out: The rows with a value that no column holds, by its key.
        notes: On columns that have the name of a parameter.
        tasks: Of a job with several tasks, the rows that each computed in this run.
        engine: The engine and its dtype; None for torch.
        pooling: How vectors were made, in words; None if none were.
        nan_rows: The rows done whose answer holds a number that is NaN or infinite.
        null_answers: The rows done whose answer is null.
        dead_reasons: Why rows are dead, the most frequent kinds first: each with its stage, error
            and count, and the message of one row, which `example` tells. In the JSON they are
            `dead_letters`.
        dead_kinds: How many kinds there are.
        dead_read: How many dead letters were read for that.
        unnamed_input: The `rows` of files that the input no longer names, the first of these
            `files`, and how many they are (`count`); None if there are none.
        published: The page of the dataset that the rows were published in.
        storage_options: Options to read the output again with (`to_dataset`, `to_arrow`, …).
    """

    rows: int
    done: int
    dead: int
    seconds: float
    rows_per_second: float
    output: str
    splits: int
    added: dict[str, int]
    padding: float | None = None
    packed: float | None = None
    repeated: int | None = None
    max_tokens: int | None = None
    device_busy: float | None = None
    truncated: dict[str, int] | None = None
    left_out: dict[str, int] | None = None
    notes: tuple[str, ...] = ()
    tasks: dict[str, int] | None = None
    engine: str | None = None
    pooling: str | None = None
    nan_rows: int = 0
    null_answers: int = 0
    dead_reasons: list[dict[str, Any]] = field(default_factory=list)
    dead_kinds: int = 0
    dead_read: int = 0
    unnamed_input: dict[str, Any] | None = None
    published: str | None = None
    # Not a field: options may hold credentials, which are never stored or shown.
    storage_options: InitVar[Mapping[str, Any] | None] = None

    def __post_init__(self, storage_options: Mapping[str, Any] | None) -> None:
        object.__setattr__(self, "_options", storage_options)

    def to_json(self) -> str:
        """Return the report as one line of JSON."""
        fields = rename_dead_reasons(asdict(self))
        for name in ("truncated", "left_out", "published", "engine", "tasks"):
            if fields[name] is None:
                del fields[name]
        if not self.notes:
            del fields["notes"]
        return json.dumps(fields)

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        return [make_fact_table(self._list_lines())]

    def to_dataset(self, columns: Sequence[str] | None = None) -> ds.Dataset:
        """Open the rows of the output as `pipemill.read` does, with the run's storage options."""
        return read(self.output, columns, storage_options=self._find_storage_options())

    dataset = to_dataset

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of the output, in the order of the input."""
        return self.to_dataset(columns).to_table()

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read the rows of the output as a frame, in the order of the input."""
        return self.to_arrow(columns).to_pandas()

    def dead_letters(self) -> pa.Table:
        """Read the rows that failed, and why."""
        options = self._find_storage_options()
        return read(self.output, dead_letters=True, storage_options=options).to_table()

    def _find_storage_options(self) -> Mapping[str, Any] | None:
        return vars(self)["_options"]

    def _list_lines(self) -> list[tuple[str, str]]:
        lines: list[tuple[str, Any]] = [
            ("rows", f"{self.rows:,} ({self.done:,} done, {self.dead:,} dead)"),
        ]
        if self.added["splits"]:
            lines.append(
                (
                    "this run",
                    f"{format_count(self.added['rows'], 'row')} in {self.seconds:.1f} s, "
                    f"{_format_rate(self.rows_per_second)} rows/s",
                )
            )
        else:
            lines.append(("this run", f"nothing left to do ({self.seconds:.1f} s)"))
        lines += self._describe_computed()
        if self.engine is not None:
            lines.append(("engine", self.engine))
        if self.pooling is not None:
            lines.append(("pooling", self.pooling))
        lines += self._describe_lost()
        lines += [("note", note) for note in self.notes]
        lines += describe_empty_answers(self.nan_rows, self.null_answers)
        if self.unnamed_input is not None:
            lines.append(("input", _describe_unnamed(self.unnamed_input)))
        lines.append(("output", f"{self.output} ({format_count(self.splits, 'part')})"))
        if self.published is not None:
            lines.append(("published", self.published))
        if self.dead:
            lines.append(("dead letters", f"{self.output.rstrip('/')}/_pipemill/dead-letter/"))
            reasons = format_reasons(self.dead_reasons, self.dead_kinds, self.dead_read, self.dead)
            lines += [("", line) for line in reasons]
        return lines

    def _describe_computed(self) -> list[tuple[str, str]]:
        lines = []
        if self.tasks:
            rows = ", ".join(
                f"{name} {format_count(count, 'row')}" for name, count in self.tasks.items()
            )
            lines.append(("tasks", rows))
        if self.packed == 1:
            lines.append(("padding", "none (packed)"))
        elif self.padding is not None:
            packed = f"{self.packed:.0%} packed" if self.packed else "not packed"
            lines.append(("padding", f"{self.padding:.1%} of the tokens computed ({packed})"))
        if self.repeated:
            lines.append(("repeats", f"{self.repeated:,} chunks computed once"))
        if self.max_tokens is not None:
            lines.append(("budget", f"{self.max_tokens:,} tokens a micro-batch"))
        if self.device_busy is not None:
            lines.append(("device busy", f"{100 * self.device_busy:.0f} %"))
        return lines

    def _describe_lost(self) -> list[tuple[str, str]]:
        lines = []
        if self.truncated is not None:
            rows, tokens = self.truncated["rows"], self.truncated["tokens"]
            lost = format_count(tokens, "token")
            lines.append(("truncated", f"{format_count(rows, 'row')} lost {lost} of their texts"))
        if self.left_out is not None:
            some = [
                f"{name!r} in {format_count(rows, 'row')}" for name, rows in self.left_out.items()
            ]
            more = f" and {len(some) - 5} other keys" if len(some) > 5 else ""
            lines.append(
                ("not kept", f"values of {', '.join(some[:5])}{more}, which no column holds")
            )
        return lines


def describe_empty_answers(nan_rows: int, null_answers: int) -> list[tuple[str, str]]:
    """Return a line for the answers that are not finite, and one for those that are null."""
    lines = []
    if nan_rows:
        count = format_count(nan_rows, "row")
        lines.append(("not finite", f"{count} with NaN or infinite numbers"))
    if null_answers:
        count = format_count(null_answers, "row")
        lines.append(("no answer", f"{count} done with a null answer"))
    return lines


def _format_rate(rows_per_second: float) -> str:
    return f"{rows_per_second:,.0f}" if rows_per_second >= 10 else f"{rows_per_second:.2g}"


def describe_output(
    ledger: Ledger,
    plan: Plan,
    whole: Mapping[str, int],
    added: Mapping[str, int],
    seconds: float,
) -> dict[str, Any]:
    """Return the fields of a report that count the whole output, and what was added to it.

    Args:
        whole: the totals of the output.
        added: rows, dead and splits of this call.
        seconds: what it took.
    """
    return {
        "seconds": round(seconds, 3),
        "rows_per_second": round(added["rows"] / seconds, 2),
        "output": ledger.path,
        "splits": len(plan.splits),
        "added": {
            "rows": added["rows"],
            "done": added["rows"] - added["dead"],
            "dead": added["dead"],
            "splits": added["splits"],
        },
        **_count_rows(whole, collect_reasons(ledger, plan) if whole["dead"] else NO_REASONS),
    }


def _count_rows(whole: Mapping[str, int], reasons: Reasons) -> dict[str, Any]:
    truncated = {"rows": int(whole["truncated_rows"]), "tokens": int(whole["lost_tokens"])}
    return {
        "rows": whole["rows"],
        "done": whole["rows"] - whole["dead"],
        "dead": whole["dead"],
        "truncated": truncated if truncated["rows"] else None,
        "left_out": left_out(whole),
        "nan_rows": int(whole["nan_rows"]),
        "null_answers": int(whole["null_answers"]),
        "dead_reasons": reasons.dead_letters,
        "dead_kinds": reasons.kinds,
        "dead_read": reasons.read,
    }


def count_unnamed_rows(ledger: Ledger, plan: Plan) -> dict[str, Any] | None:
    """Count the rows of the output from files that the input no longer names."""
    if not plan.unnamed:
        return None
    paths = set(plan.unnamed)
    splits = plan.splits.select(lambda split: any(file.path in paths for file in split.files()))
    exist = ledger.parts()
    done = splits.select(lambda split: split.part in exist)
    rows = sum(
        count
        for split, footer in zip(done, ledger.footers(done), strict=True)
        for file, count in zip(split.files(), footer.count_file_rows(split), strict=True)
        if file.path in paths
    )
    return {"rows": rows, "files": plan.unnamed[:_FILES], "count": len(plan.unnamed)}


def _describe_unnamed(unnamed: Mapping[str, Any]) -> str:
    files, more = unnamed["files"], unnamed["count"] - 1
    which = f"{files[0]} and {format_count(more, 'more file')}" if more else files[0]
    return f"{format_count(unnamed['rows'], 'row')} of {which}, which the input no longer names"


def compute_metrics(work: Mapping[str, float]) -> dict[str, Any]:
    """Return the fields of a report that say how a run computed.

    Args:
        work: what its splits counted, under the names of `Batch.stats`.
    """
    tokens, actors = work.get("tokens"), work.get("actor_seconds")
    tasks = {
        name.removeprefix(ROWS_OF): int(rows)
        for name, rows in work.items()
        if name.startswith(ROWS_OF)
    }
    of_tasks = {"tasks": tasks} if tasks else {}
    if not tokens or not actors:
        return of_tasks
    budgets = {
        int(name.removeprefix("budget_")): splits
        for name, splits in work.items()
        if name.startswith("budget_")
    }
    return {
        **of_tasks,
        "padding": round(1 - tokens / work["padded_tokens"], 4),
        "packed": round(work["packed_tokens"] / tokens, 4),
        "repeated": int(work["repeated_chunks"]),
        "max_tokens": max(budgets, key=lambda tokens: budgets[tokens], default=None),
        "device_busy": round(min(work["forward_seconds"] / actors, 1), 4),
    }
