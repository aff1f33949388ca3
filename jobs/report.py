"""Write one HTML page about an output, from the output alone: `pipemill report`.

The page needs no other file and runs no code: what rows and models say is escaped.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.compute.empty_answers import EMPTY
from pipemill.actors.output.layout import REPORT
from pipemill.actors.split import Split
from pipemill.actors.storage.filesystem import write_atomic

from .output.dead_letter_reasons import collect_reasons, place_of
from .output.job_record import JobRecord
from .output.ledger import Ledger, open_output
from .output.split_plan import Plan
from .planning.columns import kept_columns
from .status import Status, status

_FILES = 200  # parts that are read for their labels
_SHOWN = 20  # labels and kinds of errors, the most frequent ones
_LONGEST = 300  # characters of a label
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
        ConfigError: The folder is not an output of pipemill.
    """
    ledger, record, plan = open_output(output, storage_options)
    found = status(output, storage_options=storage_options)
    parts = ledger.parts()
    done = [split for split in plan.splits if split.part in parts]
    page = _render(
        task=found.task,
        output=found.output,
        facts=_collect_facts(found, record, ledger, done),
        timeline=_collect_timeline(ledger, done, found),
        labels=_count_labels(ledger, done, _label_columns(record, plan)),
        errors=_collect_errors(ledger, plan, found),
    )
    # A message may hold a lone surrogate, which UTF-8 can't encode.
    write_atomic(ledger.filesystem, f"{ledger.root}/{REPORT}", page.encode(errors="replace"))
    return f"{found.output.rstrip('/')}/{REPORT}"


def _render(**values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(values)


def _collect_facts(
    found: Status, record: JobRecord, ledger: Ledger, done: list[Split]
) -> list[tuple[str, str]]:
    names = ("tokens", "padded_tokens", "truncated_rows", "lost_tokens", *EMPTY)
    footers = ledger.footers(done)
    totals = {name: sum(getattr(footer, name) for footer in footers) for name in names}
    about = "about " if found.left_is_estimate else ""
    facts = [
        ("output", found.output),
        ("model", record.job["model"]["path"]),
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
        lost = f"{totals['truncated_rows']:,} rows lost {totals['lost_tokens']:,} tokens"
        facts.append(("truncated", lost))
    if totals["nan_rows"]:
        facts.append(("not finite", f"{totals['nan_rows']:,} rows have NaN or infinite numbers"))
    if totals["null_answers"]:
        facts.append(("no answer", f"{totals['null_answers']:,} rows are done with a null answer"))
    return facts


def _collect_timeline(ledger: Ledger, done: list[Split], found: Status) -> dict[str, Any] | None:
    """Return the rows by the time at which their part was written; None if that is one moment."""
    rows = {one["part"]: one["rows"] for one in found.each}
    entries = ledger.filesystem.ls(ledger.root, detail=True)
    written = {entry["name"].rsplit("/", 1)[-1]: _time_written(entry) for entry in entries}
    times = sorted(
        (when, rows[split.part])
        for split in done
        if rows.get(split.part) is not None and (when := written.get(split.part)) is not None
    )
    if len(times) < 2:
        return None
    first, last = times[0][0], times[-1][0]
    seconds, total, so_far = max(last - first, 1e-9), sum(n for _, n in times) or 1, 0
    points = []
    for time, count in times:
        so_far += count
        points.append(f"{1000 * (time - first) / seconds:.1f},{200 - 195 * so_far / total:.1f}")
    return {
        "points": " ".join(points),
        "rows": total,
        "first": _format_time(first),
        "last": _format_time(last),
        "rows_per_second": total / seconds,
    }


def _time_written(entry: dict[str, Any]) -> float | None:
    when = entry.get("mtime") or entry.get("LastModified") or entry.get("created")
    if isinstance(when, datetime):
        return when.timestamp()
    return float(when) if isinstance(when, int | float) else None


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(" ", "seconds")


def _label_columns(record: JobRecord, plan: Plan) -> list[str]:
    """Return the columns of a part that has labels of the task: a `label` of the input is renamed
    there."""
    keep = record.job["output"]["keep"]
    kept = kept_columns(keep, plan.schema) if keep == "all" else keep
    return ["label", "input_label"] if "label" in kept else ["label"]


def _count_labels(ledger: Ledger, done: list[Split], columns: list[str]) -> dict[str, Any]:
    """Return the most frequent labels, each with its count and its percentage of the first's."""
    sample = done[:: max(-(-len(done) // _FILES), 1)]
    counts: Counter[str] = Counter()
    for table in ledger.map_parallel(lambda s: _read_columns(ledger, s.part, columns), sample):
        if table is not None:
            counts.update(map(str, table["label"].to_pylist()))
    most = max(counts.values(), default=1)
    return {
        "sample": f" in {len(sample):,} of {len(done):,} parts" if len(sample) < len(done) else "",
        "counts": [
            (_shorten(label), count, 100 * count / most)
            for label, count in counts.most_common(_SHOWN)
        ],
    }


def _collect_errors(ledger: Ledger, plan: Plan, found: Status) -> dict[str, Any] | None:
    if not found.dead:
        return None
    reasons = collect_reasons(ledger, plan, _SHOWN)
    sample = f" ({reasons.read:,} of the {found.dead:,})" if reasons.read < found.dead else ""
    return {
        "sample": sample,
        "reasons": [{**reason, "place": place_of(reason)} for reason in reasons.dead_letters],
        "more": max(reasons.kinds - _SHOWN, 0),
    }


def _read_columns(ledger: Ledger, name: str, columns: list[str]) -> Any:
    """Return these columns of a part; None if it is gone or damaged, or lacks one."""
    try:
        with ledger.filesystem.open(f"{ledger.root}/{name}", "rb") as file:
            parquet = pq.ParquetFile(file)
            if set(columns) <= set(parquet.schema_arrow.names):
                return parquet.read(columns)
    except (FileNotFoundError, pa.ArrowException):
        pass
    return None


def _shorten(text: object) -> str:
    shown = str(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
