"""`pipemill report`: what became of a job as one HTML page, from its output alone.

The page is whole in itself, and runs no code: whatever rows and models say is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from html import escape
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.empty_answers import EMPTY
from pipemill.actors.output.layout import REPORT
from pipemill.actors.split import Split
from pipemill.actors.storage.filesystem import write_atomic

from .output.dead_letter_reasons import collect_reasons, place_of
from .output.job_record import JobRecord
from .output.ledger import Ledger
from .output.split_plan import Plan
from .planning.columns import kept_columns
from .status import Status, open_output, status

_FILES = 200  # of parts so many are read, from the first to the last
_SHOWN = 20  # labels and kinds of errors, the most frequent ones
_LONGEST = 300  # characters of a message
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.15rem 1rem .15rem 0;"
    "vertical-align:top;overflow-wrap:anywhere}.bar{background:#1a9850;height:.8rem}"
    "svg{border:1px solid #ccc;width:100%}"
)

Rows = Iterable[tuple[object, ...]]


def write_report(output: str, *, storage_options: Mapping[str, Any] | None = None) -> str:
    """Writes the page into the output, and returns its path.

    Raises ConfigError if the output is none of pipemill's.
    """
    ledger, record, plan = open_output(output, storage_options)
    found = status(output, storage_options=storage_options)
    exist = ledger.parts()
    done = [split for split in plan.splits if split.part in exist]
    body = [
        f"<h1>{escape(found.task)}</h1>",
        _table(_facts(found, record, ledger, done)),
        *_over_time(ledger, done, found),
        *_labels(ledger, done, _column_of_labels(record, plan)),
        *_errors(ledger, plan, found),
    ]
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(found.task)}: "
        f"{escape(found.output)}</title><style>{_STYLE}</style>{''.join(body)}</html>"
    )
    # A lone surrogate in a message is no UTF-8.
    write_atomic(ledger.filesystem, f"{ledger.root}/{REPORT}", page.encode(errors="replace"))
    return f"{found.output.rstrip('/')}/{REPORT}"


def _facts(
    found: Status, record: JobRecord, ledger: Ledger, done: list[Split]
) -> list[tuple[object, ...]]:
    names = ("tokens", "padded_tokens", "truncated_rows", "lost_tokens", *EMPTY)
    footers = ledger.footers(done)
    tally = {name: sum(getattr(footer, name) for footer in footers) for name in names}
    about = "about " if found.left_is_estimate else ""
    facts: list[tuple[object, ...]] = [
        ("output", found.output),
        ("model", record.job["model"]["path"]),
        ("begun", record.created),
        ("rows", f"{found.rows:,}: {found.done:,} done, {found.dead:,} dead"),
        ("left", f"{about}{found.left:,} rows, {found.splits_left:,} of {found.splits:,} splits"),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("fingerprint", record.fingerprint),
    ]
    if tally["padded_tokens"]:
        padding = 1 - tally["tokens"] / tally["padded_tokens"]
        facts.append(("tokens", f"{tally['tokens']:,}, and {padding:.1%} padding"))
    if tally["truncated_rows"]:
        lost = f"{tally['truncated_rows']:,} rows lost {tally['lost_tokens']:,} tokens"
        facts.append(("truncated", lost))
    if tally["nan_rows"]:
        facts.append(("not finite", f"{tally['nan_rows']:,} rows have NaN or infinite numbers"))
    if tally["null_answers"]:
        facts.append(("no answer", f"{tally['null_answers']:,} rows are done with a null answer"))
    return facts


def _over_time(ledger: Ledger, done: list[Split], found: Status) -> list[str]:
    """Rows by the time at which their part was written."""
    rows = {one["part"]: one["rows"] for one in found.each}
    entries = ledger.filesystem.ls(ledger.root, detail=True)
    written = {entry["name"].rsplit("/", 1)[-1]: _written(entry) for entry in entries}
    times = sorted(
        (when, rows[split.part])
        for split in done
        if rows.get(split.part) is not None and (when := written.get(split.part)) is not None
    )
    if len(times) < 2:
        return []
    first, last = times[0][0], times[-1][0]
    width, total, sofar = max(last - first, 1e-9), sum(n for _, n in times) or 1, 0
    points = []
    for time, count in times:
        sofar += count
        points.append(f"{1000 * (time - first) / width:.1f},{200 - 195 * sofar / total:.1f}")
    ends = [
        datetime.fromtimestamp(t, timezone.utc).isoformat(" ", "seconds") for t in (first, last)
    ]
    return [
        "<h2>Rows over time</h2>",
        "<svg viewBox='0 0 1000 205' preserveAspectRatio='none' height='205'><polyline fill='none' "
        f"stroke='#1a9850' stroke-width='2' points='{' '.join(points)}'/></svg>",
        f"<p>{total:,} rows from {escape(ends[0])} to {escape(ends[1])}: "
        f"{total / width:,.1f} rows/s between the first and the last part.</p>",
    ]


def _written(entry: dict[str, Any]) -> float | None:
    when = entry.get("mtime") or entry.get("LastModified") or entry.get("created")
    if isinstance(when, datetime):
        return when.timestamp()
    return float(when) if isinstance(when, int | float) else None


def _column_of_labels(record: JobRecord, plan: Plan) -> list[str]:
    """The columns of a part that has labels of the task's: one of the input's is renamed."""
    keep = record.job["output"]["keep"]
    kept = kept_columns(keep, plan.schema) if keep == "all" else keep
    return ["label", "input_label"] if "label" in kept else ["label"]


def _labels(ledger: Ledger, done: list[Split], columns: list[str]) -> list[str]:
    counts: Counter[str] = Counter()
    for table in ledger.map_parallel(lambda s: _read(ledger, s.part, columns), _spread(done)):
        if table is not None:
            counts.update(map(str, table["label"].to_pylist()))
    if not counts:
        return []
    most = max(counts.values())
    bars = "".join(
        f"<tr><td>{escape(_short(label))}</td><td>{count:,}</td><td style='width:20rem'>"
        f"<div class='bar' style='width:{100 * count / most:.1f}%'></div></td></tr>"
        for label, count in counts.most_common(_SHOWN)
    )
    return [f"<h2>Labels{_of(done, ' parts')}</h2><table>{bars}</table>"]


def _errors(ledger: Ledger, plan: Plan, found: Status) -> list[str]:
    if not found.dead:
        return []
    reasons = collect_reasons(ledger, plan, _SHOWN)
    lines: list[tuple[object, ...]] = [("rows", "stage", "error", "first message", "of which row")]
    for one in reasons.dead_letters:
        lines.append((one["count"], one["stage"], one["error"], one["message"], place_of(one)))
    if reasons.kinds > _SHOWN:
        lines.append(("", "", "", f"… and {reasons.kinds - _SHOWN:,} more kinds"))
    some = reasons.read < found.dead
    of = f" ({reasons.read:,} of the {found.dead:,})" if some else ""
    return [f"<h2>Dead letters{of}</h2>", _table(lines)]


def _read(ledger: Ledger, name: str, columns: list[str]) -> Any:
    """These columns of a file in the output; None if it is gone, damaged, or has others."""
    try:
        with ledger.filesystem.open(f"{ledger.root}/{name}", "rb") as file:
            parquet = pq.ParquetFile(file)
            if set(columns) <= set(parquet.schema_arrow.names):
                return parquet.read(columns)
    except (FileNotFoundError, pa.ArrowException):
        pass
    return None


def _spread(splits: list[Split]) -> list[Split]:
    step = max(-(-len(splits) // _FILES), 1)
    return splits[::step]


def _of(splits: list[Split], what: str) -> str:
    read = len(_spread(splits))
    return "" if read == len(splits) else f" in {read:,} of {len(splits):,}{what}"


def _table(rows: Rows) -> str:
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"


def _short(text: object) -> str:
    shown = str(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
