"""A few rows of an output computed again, one at a time, by plain transformers."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pipemill.actors.batch import Batch
from pipemill.actors.output.part_file import from_ranges
from pipemill.pipelines.reference.row_by_row import PlainRows

from pipemill.errors import ConfigError, explain_missing_library

from ..config.load import make_job
from ..execution.devices import choose_device
from ..output.ledger import Ledger
from ..output.split_plan import Plan, Split
from ..planning.find_model import load_failure, resolve_model
from ..planning.requirements import check_requirements
from ..planning.resolve_task import validate_parameters
from ..prepare import PreparedJob, build_prepared_job

Notes = dict[str, Any]


@dataclass
class SampleCheck:
    """Rows that were computed again.

    transformers: how many of them by plain transformers; pipemill: by pipemill itself, in this
        process, because transformers has no one answer for such a row.
    difference: the largest one, in numbers as they are up to 1, relative above.
    tolerance: the largest one that is no finding.
    """

    rows: int = 0
    transformers: int = 0
    pipemill: int = 0
    difference: float = 0.0
    tolerance: float = 0.0
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        names = ("rows", "transformers", "pipemill", "difference", "tolerance")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        ways = [f"{self.transformers:,} by plain transformers"] * bool(self.transformers)
        ways += [f"{self.pipemill:,} by pipemill, one by one"] * bool(self.pipemill)
        return (
            f"{self.rows:,} rows again ({', '.join(ways) or 'none'}); the largest difference is "
            f"{self.difference:.2g} (up to {self.tolerance:g} is no fault)"
        )


def verify_sample(
    ledger: Ledger,
    record: dict[str, Any],
    plan: Plan,
    notes: Mapping[int, Notes],
    count: int,
    options: Mapping[str, Any],
) -> SampleCheck:
    """Compares so many rows, chosen by chance among those with a result.

    record: the output's job.json. notes: of the parts, by split. options: for the input's
    filesystem. Raises ConfigError if the model is not the one that computed the output.
    """
    prepared = _reopened(ledger, record, plan, options)
    sampled = SampleCheck(notes=_other_versions(record))
    ways: dict[str, PlainRows] = {}
    for split, rows in _chosen(plan, notes, count):
        by_settings = defaultdict(list)
        for row in rows:
            by_settings[_settings(record, notes[split.number], row)].append(row)
        for settings, some in by_settings.items():
            if settings not in ways:
                ways[settings] = _plain_rows(prepared, settings)
                sampled.tolerance = max(sampled.tolerance, ways[settings].tolerance)
            _compare(prepared, ways[settings], split, notes[split.number], some, sampled)
    return sampled


def _reopened(
    ledger: Ledger, record: dict[str, Any], plan: Plan, options: Mapping[str, Any]
) -> PreparedJob:
    job = make_job(record["job"], f"{ledger.path}'s job.json")
    job = job.model_copy(
        update={"input": job.input.model_copy(update={"storage_options": dict(options)})}
    )
    path, revision, weights = resolve_model(job.model)
    if weights != record["decides"]["model"]:
        raise ConfigError(
            f"the model at {job.model.path} is not the one that computed {ledger.path}: its files "
            "have changed. Put the old ones back to compute a sample again"
        )
    job = choose_device(job, (path, revision), here=True)
    prepared = build_prepared_job(job, plan, ledger, record["decides"], (path, revision))
    check_requirements(job, (path, revision), dict(prepared.load.columns), "local")
    return prepared


def _other_versions(record: dict[str, Any]) -> list[str]:
    from importlib.metadata import version

    return [
        f"{name} was {record['decides'][name]} then, and is {version(name)} now"
        for name in ("transformers", "torch")
        if record["decides"][name] != version(name)
    ]


def _settings(record: dict[str, Any], notes: Notes, row: int) -> str:
    """What that row was computed with, as JSON: a retry may have changed it."""
    for fingerprint, ranges in notes.get("retried", {}).items():
        if any(start <= row < stop for start, stop in ranges):
            return json.dumps(record["retries"][fingerprint], sort_keys=True)
    decides = record["decides"]
    told = {name: decides[name] for name in ("parameters", "model.dtype")}
    return json.dumps(told, sort_keys=True)


def _plain_rows(prepared: PreparedJob, settings: str) -> PlainRows:
    told = json.loads(settings)
    model = replace(prepared.load.model, dtype=told["model.dtype"])
    given = validate_parameters(told["parameters"], prepared.load.spec())
    settled = prepared.plan.settled or {}
    parameters = {**given, **{n: v for n, v in settled.items() if given.get(n) is None}}
    load = replace(prepared.load, parameters=json.dumps(parameters), model=model)
    try:
        return PlainRows(load)
    except Exception as error:  # of the model's own code, or of a library that is not there
        raise load_failure(error, model.path) from error


def _chosen(plan: Plan, notes: Mapping[int, Notes], count: int) -> list[tuple[Split, list[int]]]:
    """Rows with a result, as (split, row numbers), all equally likely."""
    splits = [split for split in plan.splits if split.number in notes]
    live = [notes[split.number]["rows"] - notes[split.number]["dead"] for split in splits]
    ends = np.cumsum([0, *live])
    picked = sorted(random.sample(range(int(ends[-1])), min(count, int(ends[-1]))))
    rows: dict[int, list[int]] = defaultdict(list)
    for place in picked:
        at = int(np.searchsorted(ends, place, side="right")) - 1
        rows[at].append(place - int(ends[at]))
    return [
        (splits[at], [int(_live(notes[splits[at].number])[i]) for i in places])
        for at, places in rows.items()
    ]


def _live(notes: Notes) -> np.ndarray:
    return np.setdiff1d(np.arange(notes["rows"]), from_ranges(notes["dead_rows"]))


def _compare(
    prepared: PreparedJob,
    plain: PlainRows,
    split: Split,
    notes: Notes,
    rows: list[int],
    sampled: SampleCheck,
) -> None:
    """Computes these rows of a split, and counts how they compare with its part."""
    ledger, keep = prepared.ledger, prepared.sink.keep
    batch = _read(prepared, split)
    with ledger.filesystem.open(f"{ledger.root}/{split.part}", "rb") as file:
        part = pq.read_table(file)
    places = rows
    if prepared.sink.on_error != "null":
        places = np.searchsorted(_live(notes), rows).tolist()
    for row, place in zip(rows, places, strict=True):
        where = f"{split.part}, row {place} (row {row} of split {split.number}, {split.path})"
        sampled.rows += 1
        if row >= batch.rows.num_rows or row in batch.failures:
            sampled.findings.append(f"{where}: the input has no such row any more")
            continue
        got = list(part.slice(place, 1).to_pylist()[0].values())
        source = list(batch.rows.select(keep).slice(row, 1).to_pylist()[0].values())
        if max_difference(got[: len(keep)], source) > 0:
            sampled.findings.append(f"{where}: its input columns are not those of the input")
            continue
        with explain_missing_library():
            expected, by_transformers = plain.answer(Batch(batch.rows.slice(row, 1)))
        sampled.transformers += by_transformers
        sampled.pipemill += not by_transformers
        apart = max_difference(got[len(keep) :], list(expected.values()))
        if apart > plain.tolerance:
            names = part.column_names[len(keep) :]
            shown = f"{dict(zip(names, got[len(keep) :], strict=True))!s:.300}"
            sampled.findings.append(f"{where}: it says {shown}, again it is {expected!s:.300}")
        if np.isfinite(apart):
            sampled.difference = max(sampled.difference, apart)


def _read(prepared: PreparedJob, split: Split) -> Batch:
    try:
        return prepared.source.read(json.loads(split.to_json()))
    except Exception as error:  # of the filesystem, or of the format
        raise ConfigError(
            f"a sample needs the input, and {split.path} can't be read: "
            f"{type(error).__name__}: {error}"
        ) from error


def max_difference(one: Any, other: Any) -> float:
    """The largest difference of two values' numbers, relative above 1; infinite if others differ.

    Two values that are not numbers (NaN) are equal.
    """
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((max_difference(one[name], other[name]) for name in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((max_difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, float | int):
        if one == other or (one != one and other != other):
            return 0.0
        apart = abs(one - other) / max(1.0, abs(other))
        return apart if apart == apart else float("inf")
    return 0.0 if one == other else float("inf")
