"""Compute a few rows of an output again, one at a time, with plain transformers."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.batch import Batch
from pipemill.actors.compute.row_condition import RowCondition
from pipemill.actors.output.part_file import from_ranges
from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.split import Split
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.reference.row_by_row import PlainRows

from pipemill.errors import ConfigError, explain_missing_library

from ..config.job import Job
from ..config.load import make_job
from ..output.job_record import JobRecord
from ..output.ledger import Ledger
from ..output.split_plan import Plan
from ..planning.find_model import digest_model, load_failure, resolve_model
from ..planning.models.save_model import with_model_of_output
from ..planning.prepared_job import PreparedJob, build_prepared_job
from ..planning.resolve_task import validate_parameters
from ..prepare import check_libraries, resolve_job
from .drift import Drift
from .row_difference import max_difference, read_row


@dataclass
class SampleCheck:
    """A comparison of rows with the same rows computed again.

    rows: How many rows were compared.
    transformers: How many of them plain transformers computed.
    pipemill: How many pipemill computed, in this process, because transformers has no single
        answer for such a row.
    difference: The largest difference of two numbers, absolute up to 1, relative above.
    tolerance: The largest difference that is not a finding; infinite where an engine computes in
        a lower precision, whose differences are `drift`.
    drift: How far an engine's answers are from those of plain transformers; None for torch.
    """

    rows: int = 0
    transformers: int = 0
    pipemill: int = 0
    difference: float = 0.0
    tolerance: float = 0.0
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    drift: Drift | None = None

    def summary(self) -> dict[str, Any]:
        names = ("rows", "transformers", "pipemill", "difference", "tolerance")
        drift = {} if self.drift is None else {"drift": self.drift.summary()}
        fields = {name: getattr(self, name) for name in names}
        if not np.isfinite(self.tolerance):
            fields["tolerance"] = None
        return {**fields, **drift}

    def __str__(self) -> str:
        ways = [f"{self.transformers:,} by plain transformers"] * bool(self.transformers)
        ways += [f"{self.pipemill:,} by pipemill, one by one"] * bool(self.pipemill)
        limit = f" (up to {self.tolerance:g} is accepted)" if np.isfinite(self.tolerance) else ""
        return (
            f"{self.rows:,} rows again ({', '.join(ways) or 'none'}); the largest difference is "
            f"{self.difference:.2g}{limit}"
        )


def verify_sample(
    ledger: Ledger,
    record: JobRecord,
    plan: Plan,
    footers: Mapping[int, PartFooter],
    count: int,
    options: Mapping[str, Any],
) -> SampleCheck:
    """Compute random rows with a result again, and compare.

    Args:
        ledger: The output.
        record: Its job.json.
        plan: Its splits.
        footers: The footers of the parts, by the number of their split.
        count: How many rows to compute.
        options: For the input's filesystem.

    Raises:
        ConfigError: The model is not the one that computed the output, or a file can't be read.
    """
    prepared = _prepare_again(ledger, record, plan, options)
    # Answers of torch are exact.
    drift = None if prepared.engine is None else Drift(prepared.engine)
    check = SampleCheck(notes=_list_other_versions(record), drift=drift)
    steps = _list_steps(prepared)
    plain_by_settings: dict[tuple[str, str], PlainRows] = {}
    for split, rows in _choose_rows(plan, footers, count):
        check.rows += len(rows)
        for step in steps:
            rows_by_settings = defaultdict(list)
            for row in rows:
                settings = _find_settings(record, footers[split.number], row, step.stored)
                rows_by_settings[settings].append(row)
            for settings, some in rows_by_settings.items():
                key = step.stored, settings
                if key not in plain_by_settings:
                    plain_by_settings[key] = _make_plain_rows(prepared.plan, step, settings)
                plain = plain_by_settings[key]
                check.tolerance = max(check.tolerance, plain.tolerance)
                _compare(prepared, step, plain, split, footers[split.number], some, check)
    if check.drift is not None and (finding := check.drift.finding()):
        check.findings.append(finding)
    return check


def _prepare_again(
    ledger: Ledger, record: JobRecord, plan: Plan, options: Mapping[str, Any]
) -> PreparedJob:
    job = make_job(record.job, f"{ledger.path}'s job.json")
    job = job.model_copy(
        update={"input": job.input.model_copy(update={"storage_options": dict(options)})}
    )
    job = with_model_of_output(job, ledger)
    for one, (prefix, _) in zip(job.each_task(), record.entries, strict=True):
        if digest_model(one.model, resolve_model(one.model)) != record.decides[f"{prefix}model"]:
            raise ConfigError(
                f"the model at {one.model.path} is not the one that computed {ledger.path}: its "
                "files have changed. Put the old ones back to compute a sample again"
            )
    job, task = resolve_job(job, None, here=True, decides=record.decides)
    prepared = build_prepared_job(job, task, plan, ledger, record.decides)
    check_libraries(prepared, task, "local")
    return prepared


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A task whose answers are compared: the job's, or one of several.

    stored: what stands before the names of its fields in job.json.
    prefix, condition: as in `CascadeStep`.
    """

    load: LoadTask
    stored: str = ""
    prefix: str = ""
    condition: RowCondition | None = None


def _list_steps(prepared: PreparedJob) -> list[_Step]:
    if isinstance(prepared.load, LoadTask):
        return [_Step(load=prepared.load)]
    return [
        _Step(
            load=step.load,
            stored=f"{step.name}.",
            prefix=step.prefix,
            condition=step.condition,
        )
        for step in prepared.load.steps
    ]


def _list_other_versions(record: JobRecord) -> list[str]:
    from importlib.metadata import version

    return [
        f"{name} was {record.decides[name]} in the run, and is {version(name)} now"
        for name in ("transformers", "torch")
        if record.decides[name] != version(name)
    ]


def _find_settings(record: JobRecord, footer: PartFooter, row: int, stored: str) -> str:
    """Return what a row was computed with, as JSON: a retry may have changed it."""
    decides = record.decides
    for fingerprint, ranges in footer.retried.items():
        if row in from_ranges(ranges):
            decides = record.retries[fingerprint]
            break
    fields = {name: decides[stored + name] for name in ("parameters", "model.dtype")}
    return json.dumps(fields)  # not sorted: the order of a question's options may be read, too


def _make_plain_rows(plan: Plan, step: _Step, settings: str) -> PlainRows:
    fields, spec = json.loads(settings), step.load.spec()
    model = replace(step.load.model, dtype=fields["model.dtype"])
    given = validate_parameters(fields["parameters"], spec, Job)
    stored = plan.inferred or {}
    inferred = {
        n: stored[step.stored + n] for n in spec.infer_parameters if step.stored + n in stored
    }
    parameters = {**given, **{n: v for n, v in inferred.items() if given.get(n) is None}}
    load = replace(step.load, parameters=json.dumps(parameters), model=model)
    try:
        return PlainRows(load)
    except Exception as error:  # from code of the model, or a missing library
        raise load_failure(error, model.name) from error


def _choose_rows(
    plan: Plan, footers: Mapping[int, PartFooter], count: int
) -> list[tuple[Split, list[int]]]:
    """Return random rows with a result, all equally likely, as (split, row numbers)."""
    splits = plan.splits.select(lambda split: split.number in footers)
    live = [footers[split.number].rows - footers[split.number].dead for split in splits]
    ends = np.cumsum([0, *live])
    picked = sorted(random.sample(range(int(ends[-1])), min(count, int(ends[-1]))))
    rows: dict[int, list[int]] = defaultdict(list)
    for place in picked:
        at = int(np.searchsorted(ends, place, side="right")) - 1
        rows[at].append(place - int(ends[at]))
    return [
        (splits[at], _list_live_rows(footers[splits[at].number])[places].tolist())
        for at, places in rows.items()
    ]


def _list_live_rows(footer: PartFooter) -> np.ndarray:
    return np.setdiff1d(np.arange(footer.rows), from_ranges(footer.dead_rows), assume_unique=True)


def _compare(
    prepared: PreparedJob,
    step: _Step,
    plain: PlainRows,
    split: Split,
    footer: PartFooter,
    rows: list[int],
    check: SampleCheck,
) -> None:
    """Compute these rows of a split, and record how they compare with its part."""
    ledger, keep = prepared.ledger, prepared.sink.keep
    batch = _read(prepared, split)
    with ledger.open(split.part) as file:
        part = pq.read_table(file)
    places = rows
    if prepared.sink.on_error != "null":
        places = np.searchsorted(_list_live_rows(footer), rows).tolist()
    for row, place in zip(rows, places, strict=True):
        path, _ = footer.find_row(split, row)
        where = f"{split.part}, row {place} (row {row} of split {split.number}, {path})"
        if row >= batch.rows.num_rows or row in batch.failures:
            check.findings.append(f"{where}: the input no longer has this row")
            continue
        got = read_row(part, place)
        source = read_row(batch.rows.select(keep), row)
        if max_difference(got[: len(keep)], source) > 0:
            check.findings.append(f"{where}: its input columns differ from the input")
            continue
        answers = dict(zip(part.column_names[len(keep) :], got[len(keep) :], strict=True))
        if step.condition is not None and not _is_true(step.condition, part, place, batch, row):
            continue
        with explain_missing_library():
            expected, by_transformers = plain.answer(Batch(batch.rows.slice(row, 1)))
        check.transformers += by_transformers
        check.pipemill += not by_transformers
        if step.stored:
            answers = {name: answers.get(step.prefix + name) for name in expected}
        apart = max_difference(list(answers.values()), list(expected.values()))
        if check.drift is not None and by_transformers and expected.keys() == answers.keys():
            check.drift.add(answers, expected)
        if apart > plain.tolerance:
            check.findings.append(
                f"{where}: it holds {answers!s:.300}, but again it is {expected!s:.300}"
            )
        if np.isfinite(apart):
            check.difference = max(check.difference, apart)


def _is_true(condition: RowCondition, part: pa.Table, place: int, batch: Batch, row: int) -> bool:
    """Tell whether a condition is true of a row of a part, which is one of the input."""
    known = {name: batch.rows[name].slice(row, 1) for name in batch.rows.column_names}
    known |= {name: part[name].slice(place, 1) for name in part.column_names}
    named = pa.table({name: known[name] for name in condition.columns})
    return len(condition.find_rows(named)) > 0


def _read(prepared: PreparedJob, split: Split) -> Batch:
    try:
        return prepared.source.read(split)
    except Exception as error:  # from the filesystem, or the format
        raise ConfigError(
            f"a sample needs the input, and {split.path} can't be read: "
            f"{type(error).__name__}: {error}"
        ) from error
