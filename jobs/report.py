"""Write one HTML page about an output, from the output alone: `pipemill report`.

The page needs no other file and runs no code: what rows and models say is escaped.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pipemill.actors.compute.empty_answers import EMPTY
from pipemill.actors.output.layout import REPORT
from pipemill.actors.output.state_table import dead_letters
from pipemill.actors.split import Split
from pipemill.actors.storage.filesystem import write_atomic

from pipemill.errors import ConfigError

from .config.task_entry import TaskEntry
from .measuring.answer_statistics import AnswerStatistics, describe_answers
from .measuring.part_sample import FILES, count_text_lengths, read_answers, take_some
from .monitoring.pace_chart import PaceChart, compute_pace, draw_pace
from .monitoring.run_history import RunHistory, read_history
from .output.dead_letter_reasons import collect_reasons, place_of
from .output.job_command import format_command
from .output.job_record import JobRecord
from .output.ledger import Ledger, open_output
from .output.run_report import describe_empty_answers
from .output.split_plan import Plan
from .output.text_table import format_count, format_duration, format_number
from .status import Status, status

_SHOWN = 20  # labels and kinds of errors, the most frequent ones
_LONGEST = 300  # characters of a label, and of a value
_COLUMNS = 6  # of a dead row
_TEMPLATE = "report.html.jinja"


def report(
    output: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> str:
    """Write the page into the output, and return its path.

    Args:
        output: The folder or URL that a run writes to.
        storage_options: For its filesystem.

    Returns:
        The page's path or URL.

    Raises:
        ConfigError: The folder is not an output of pipemill, or can't be written to.
    """
    ledger, record, plan = open_output(output, storage_options)
    found = status(output, storage_options=storage_options)
    parts = ledger.parts()
    done = plan.splits.select(lambda split: split.part in parts)
    history = read_history(ledger.store)
    answers = [
        describe_answers(read_answers(ledger, done, record, plan, prefix), name)
        for name, prefix in _list_tasks(record)
    ]
    page = _render(
        task=found.task,
        found=found,
        quoted=repr(found.output),
        model=", ".join(path.rstrip("/").rsplit("/", 1)[-1] for path in _list_models(record)),
        tiles=_collect_tiles(found, history),
        facts=_collect_facts(found, record, ledger, done),
        chart=_draw_chart(ledger, done, found, history),
        stages=_list_stages(history),
        runs=[_describe_run(run) for run in history.runs],
        answers=[
            (one, _list_labels(one, done))
            for one in answers
            if one.labels or one.scores or one.dimension
        ],
        lengths=count_text_lengths(ledger, record, plan, done),
        slowest=_list_slowest(history),
        errors=_collect_errors(ledger, plan, found),
        command=format_command(ledger, record),
        retry=format_command(ledger, record, "retry"),
    )
    place = f"{found.output.rstrip('/')}/{REPORT}"
    try:
        # A message may hold a lone surrogate, which UTF-8 can't encode.
        write_atomic(ledger.filesystem, f"{ledger.root}/{REPORT}", page.encode(errors="replace"))
    except Exception as error:  # filesystems raise exceptions of many classes
        raise ConfigError(f"can't write {place}: {type(error).__name__}: {error}") from error
    return place


def _render(**values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(values)


def _collect_tiles(found: Status, history: RunHistory) -> list[tuple[str, str, str]]:
    """Return the figures that stand first: a name, a number, and a word about it."""
    about = "about " if found.left_is_estimate else ""
    tiles = [
        ("done", f"{found.done:,}", f"of {about}{found.rows + found.left:,} rows"),
        ("dead letters", f"{found.dead:,}", f"{found.dead / max(found.rows, 1):.2%} of the rows"),
    ]
    whole = history.whole()
    if whole is not None:
        rate = whole.rows / max(whole.seconds, 1e-3)
        tiles += [
            ("rows per second", format_number(rate), "waits included"),
            (
                "running",
                format_duration(whole.seconds),
                f"in {format_count(len(history.runs), 'run')}",
            ),
        ]
    return tiles


def _collect_facts(
    found: Status, record: JobRecord, ledger: Ledger, done: Sequence[Split]
) -> list[tuple[str, str]]:
    names = ("tokens", "padded_tokens", "truncated_rows", "lost_tokens", *EMPTY)
    footers = ledger.footers(done)
    totals = {name: sum(getattr(footer, name) for footer in footers) for name in names}
    about = "about " if found.left_is_estimate else ""
    facts = [
        ("output", found.output),
        ("model", ", ".join(_list_models(record))),
        ("started", record.created),
        ("rows", f"{found.rows:,}: {found.done:,} done, {found.dead:,} dead"),
        ("left", f"{about}{found.left:,} rows, {found.splits_left:,} of {found.splits:,} splits"),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("fingerprint", record.fingerprint),
    ]
    if totals["padded_tokens"]:
        padding = 1 - totals["tokens"] / totals["padded_tokens"]
        facts.append(("tokens", f"{totals['tokens']:,}, and {padding:.1%} padding"))
    if totals["truncated_rows"]:
        rows, tokens = totals["truncated_rows"], totals["lost_tokens"]
        lost = f"{format_count(rows, 'row')} lost {format_count(tokens, 'token')}"
        facts.append(("truncated", lost))
    return facts + describe_empty_answers(totals["nan_rows"], totals["null_answers"])


def _draw_chart(
    ledger: Ledger, done: Sequence[Split], found: Status, history: RunHistory
) -> PaceChart | None:
    """Draw rows per second: from the logs of runs, else from the times of parts."""
    whole = history.whole()
    if whole is not None:
        note = "Dashed lines are where a run began." if len(history.runs) > 1 else ""
        chart = draw_pace(history.pace, history.starts, whole.rows, note)
        if chart is not None:
            return chart
    rows = {one["part"]: one["rows"] for one in found.each}
    entries = ledger.filesystem.ls(ledger.root, detail=True)
    written = {entry["name"].rsplit("/", 1)[-1]: _read_time_written(entry) for entry in entries}
    times = sorted(
        (when, rows[split.part])
        for split in done
        if rows.get(split.part) is not None and (when := written.get(split.part)) is not None
    )
    note = "From the times at which parts were written."
    return draw_pace(compute_pace(times), [], sum(count for _, count in times), note)


def _list_stages(history: RunHistory) -> list[tuple[str, float]]:
    """Return each stage with its share of the actors' time in percent."""
    whole = history.whole()
    shares = {} if whole is None else whole.shares()
    return [(name, 100 * share) for name, share in shares.items()]


def _describe_run(run: Any) -> tuple[str, ...]:
    end = "complete" if run.splits_done == run.splits else run.text or "it was killed"
    return (
        run.time.replace("T", " ").removesuffix("+00:00"),
        run.verb,
        f"{run.rows:,}",
        format_duration(run.seconds),
        format_number(run.rows / max(run.seconds, 1e-3)),
        _shorten(end),
    )


def _read_time_written(entry: dict[str, Any]) -> float | None:
    when = entry.get("mtime") or entry.get("LastModified") or entry.get("created")
    if isinstance(when, datetime):
        return when.timestamp()
    return float(when) if isinstance(when, int | float) else None


def _list_models(record: JobRecord) -> list[str]:
    return list(dict.fromkeys(str(entry["model"]["path"]) for _, entry in record.entries))


def _list_tasks(record: JobRecord) -> list[tuple[str, str]]:
    """Return the name of each of several tasks, and what stands before its columns."""
    entries = [TaskEntry.model_validate(entry) for entry in record.job.get("tasks", ())]
    return [(entry.label, entry.prefix) for entry in entries] or [("", "")]


def _list_slowest(history: RunHistory) -> list[tuple[str, ...]]:
    """Return the slowest splits: number, file, rows, time and the time of a row."""
    whole = history.whole()
    return [
        (
            f"{split['split']:,}",
            _shorten(split["path"]),
            f"{split['rows']:,}",
            f"{format_number(split['seconds'])} s",
            f"{format_number(1000 * split['seconds'] / max(split['rows'], 1))} ms",
        )
        for split in (() if whole is None else whole.slowest)
    ]


def _list_labels(answers: AnswerStatistics, done: Sequence[Split]) -> dict[str, Any]:
    """Return the most frequent labels, each with its count and its percentage of the first's."""
    read = len(take_some(done, FILES))
    most = max(answers.labels.values(), default=1)
    return {
        "sample": f" in {read:,} of {len(done):,} parts" if read < len(done) else "",
        "counts": [
            (_shorten(label), count, 100 * count / most)
            for label, count in answers.labels.most_common(_SHOWN)
        ],
        "more": max(len(answers.labels) - _SHOWN, 0),
    }


def _collect_errors(ledger: Ledger, plan: Plan, found: Status) -> dict[str, Any] | None:
    if not found.dead:
        return None
    reasons = collect_reasons(ledger, plan, _SHOWN)
    sample = f" ({reasons.read:,} of the {found.dead:,})" if reasons.read < found.dead else ""
    most = max((reason["count"] for reason in reasons.dead_letters), default=1)
    return {
        "sample": sample,
        "reasons": [
            {
                **reason,
                "place": place_of(reason),
                "percent": 100 * reason["count"] / most,
                "row": _read_dead_row(ledger, plan, reason["example"]),
            }
            for reason in reasons.dead_letters
        ],
        "more": max(reasons.kinds - _SHOWN, 0),
    }


def _read_dead_row(ledger: Ledger, plan: Plan, example: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the values of a dead row that are texts or numbers; [] if they can't be read."""
    try:
        with dead_letters(ledger.store, plan.splits[example["split"]].part).open() as file:
            table = pq.read_table(file)
        simple = [field.name for field in table.schema if not _is_odd(field.type)]
        found = table.filter(pc.equal(table["row"], example["split_row"])).select(simple)
        row = found.slice(0, 1).to_pylist()
    except (OSError, LookupError, pa.ArrowException):
        return []
    own = ("split", "row", "stage", "error", "message", "attempts")
    values = [(name, value) for one in row for name, value in one.items() if name not in own]
    return [
        (name, "null" if value is None else _shorten(value))
        for name, value in values
        if value is None or isinstance(value, str | int | float)
    ][:_COLUMNS]


def _is_odd(kind: pa.DataType) -> bool:
    """Tell whether Python may lack values of a type, such as a time far away."""
    return pa.types.is_temporal(kind) or pa.types.is_nested(kind)


def _shorten(text: object) -> str:
    shown = str(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
