"""`pipemill retry`: only the dead letters, whose answers then go where they belong."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

from pipemill.actors.output.layout import DEAD_LETTERS
from pipemill.actors.output.part_rewriter import DeadRowSource, PartRewriter
from pipemill.actors.storage.filesystem import absolute
from pipemill.actors.storage.listing import stat
from pipemill.actors.workers import LIBRARY, MODEL

from pipemill.errors import ConfigError, RunError, explain_interrupt

from .config.job import Job
from .config.load import build_job
from .execution.devices import choose_device
from .execution.placement import resolve_placement, run_splits, stage_of, uses_ray
from .execution.progress import Progress
from .execution.ray_cluster import ray_session
from .output.dead_letter_reasons import NO_REASONS, collect_reasons
from .output.error_limit import check_at_the_end
from .output.lease import Lease
from .output.ledger import Ledger
from .output.run_report import Report, count_output
from .output.split_plan import Plan, Split
from .planning.find_model import permanent_load_error, resolve_model
from .planning.fingerprint import check_fingerprint, fingerprint_fields, hash_fields
from .planning.model_conventions import read_conventions
from .planning.requirements import check_requirements
from .planning.resolve_task import choose_dtype, resolve_task
from .planning.stored_dataset import with_stored_dataset
from .prepare import PreparedJob, build_prepared_job
from .status import open_output

# What may be another for rows that died: with it they may live. It is written into the part.
MAY_CHANGE = ("parameters", "model.dtype", "transformers", "torch")


def retry(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None = None,
    *,
    settings: list[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    **sections: Any,
) -> Report:
    """Computes the dead letters of an output again, and puts the answers among the others.

    The arguments are those of `run`, and describe the same job; its parameters, `model.dtype`,
    `batching` and `actors` may be others. `added` in the report counts the rows that were tried;
    one that dies again stays a dead letter, its `attempts` raised by one.

    Raises ConfigError, before a model loads or Ray starts, if the job is not the output's;
    or once its model shows that it can't load; RunError if it stopped (the same call then goes
    on), if the run has rows left, or if too many rows are still dead (its `report` says why).
    """
    started = time.monotonic()
    job = build_job(config, settings or [], columns or {}, sections)
    options = job.output.storage_options
    with explain_interrupt(), Lease(absolute(job.output.path), options, "retry") as lease:
        ledger, record, plan = open_output(job.output.path, options)
        prepared, retries = _reopened(job, ledger, record, plan)
        job = prepared.job
        exist = ledger.parts()
        done = [split for split in plan.splits if split.part in exist]
        footers, left = ledger.footers(done), len(plan.splits) - len(done)
        added: Counter[str] = Counter()
        if todo := [s for s, footer in zip(done, footers, strict=True) if footer["dead"]]:
            _check_unchanged(plan, todo, with_stored_dataset(job, ledger))
            model, columns = prepared.load.model, dict(prepared.load.columns)
            check_requirements(job, (model.path, model.revision), columns, prepared.placement)
            lease.take()
            _note(ledger, retries)
            added = _mend(job, prepared, todo, sum(f["dead"] for f in footers), lease)
        _tidy(ledger, done, lease)
        seconds = time.monotonic() - started
        report = replace(_report(ledger, plan, done, added, seconds), pooling=prepared.pooling)
    if left:
        raise RunError(
            f"{added['done']:,} of {added['rows']:,} dead letters have an answer now. But {left} "
            f"of {len(plan.splits)} splits have no part yet: do them with run"
        )
    check_at_the_end(job.output, report)
    return report


def _reopened(
    job: Job, ledger: Ledger, record: dict[str, Any], plan: Plan
) -> tuple[PreparedJob, dict[str, Any]]:
    """The job over the stored plan, and settings other than the job's, by their fingerprint."""
    path, revision, weights = resolve_model(job.model)
    job = choose_device(job, (path, revision))
    kind, is_own = resolve_task(job, path)
    followed = read_conventions(job, kind, (path, revision)).followed.decides
    decides = fingerprint_fields(
        job, kind.name, choose_dtype(job, kind, is_own, record), weights, followed
    )
    then = record["decides"]
    same = {**decides, **{name: then.get(name) for name in MAY_CHANGE}}
    check_fingerprint(record, same, job, ledger.path)
    prepared = build_prepared_job(
        with_stored_dataset(job, ledger), plan, ledger, decides, (path, revision)
    )
    own = {name: decides.get(name) for name in MAY_CHANGE}
    return prepared, {hash_fields(decides): own} if decides != then else {}


def _note(ledger: Ledger, retries: dict[str, Any]) -> None:
    """Adds settings to those that job.json tells; the parts' footers name them by fingerprint."""
    record = ledger.read_job() or {}
    known = record.get("retries", {})
    if retries.keys() - known.keys():
        ledger.write_job({**record, "retries": {**known, **retries}})


def _check_unchanged(plan: Plan, splits: list[Split], job: Job) -> None:
    """Raises ConfigError for a file that is not the one that was planned."""
    for path in dict.fromkeys(file.path for split in splits for file in split.files()):
        try:
            plan.new_files([stat(path, job.input.storage_options)])
        except FileNotFoundError:
            raise ConfigError(
                f"{path} is not there any more: its dead letters can't be read again"
            ) from None


def _mend(
    job: Job, prepared: PreparedJob, splits: list[Split], dead: int, lease: Lease
) -> Counter[str]:
    """Tries the dead rows of these splits, and counts them: rows, done, dead, splits."""
    sink = PartRewriter(**vars(prepared.sink))
    source = DeadRowSource(prepared.source, sink)
    totals: Counter[str] = Counter()
    troubles: list[str] = []
    placement = resolve_placement(prepared.placement, job.actors, splits)
    with ray_session(job.actors.cluster) if uses_ray(placement) else nullcontext():
        lines = run_splits(placement, splits, prepared.load, source, sink, job.actors)
        stage = stage_of(placement, prepared.load, sink, job.actors)
        label = f"retry of {prepared.load.task}"
        with closing(lines), Progress(label, dead, stage=stage) as progress:
            for line in lease.watch(lines):
                if line["error"] is not None:
                    split = json.loads(line["split"])
                    if line.get("cause") == MODEL:
                        raise permanent_load_error(job.model.path, line["error"])
                    if line.get("cause") == LIBRARY:
                        raise ConfigError(line["error"])
                    troubles.append(f"{split['path']} (split {split['number']}): {line['error']}")
                    if line["fatal"]:
                        break
                    continue
                rows, died = line["rows"] or 0, line["dead"] or 0
                totals.update(rows=rows, dead=died, done=rows - died, splits=1)
                progress.add(rows, died, dead)
    if troubles or totals["splits"] < len(splits):
        raise RunError(
            f"the dead letters of {totals['splits']} of {len(splits)} splits were tried; retry "
            "again to do the others. What stopped them:\n"
            + "\n".join(troubles[:3] or ["Ray gave no reason"])
        )
    return totals


def _tidy(ledger: Ledger, done: list[Split], lease: Lease) -> None:
    """Removes dead letters that all have an answer: a retry was killed before it did."""
    try:
        names = ledger.filesystem.ls(f"{ledger.root}/{DEAD_LETTERS}", detail=False)
    except FileNotFoundError:
        return
    there = {name.rsplit("/", 1)[-1] for name in names}
    some = [split for split in done if split.part in there]
    for split, footer in zip(some, ledger.footers(some), strict=True):
        if not footer["dead"]:
            lease.take()
            ledger.filesystem.rm_file(f"{ledger.root}/{DEAD_LETTERS}/{split.part}")


def _report(
    ledger: Ledger, plan: Plan, done: list[Split], added: Counter[str], seconds: float
) -> Report:
    whole = ledger.tally(done)
    return Report(
        seconds=round(seconds, 3),
        rows_per_second=round(added["rows"] / seconds, 2),
        output=ledger.path,
        splits=len(plan.splits),
        added={name: added[name] for name in ("rows", "done", "dead", "splits")},
        **count_output(whole, collect_reasons(ledger, plan) if whole["dead"] else NO_REASONS),
    )
