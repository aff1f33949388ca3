"""Run a job, or finish one that was stopped: `pipemill.run`, `python -m pipemill.jobs.run`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    import runpy
    import sys

    sys.argv.insert(1, "run")
    runpy.run_module("pipemill", run_name="__main__")

import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

from pipemill.actors.split import Split
from pipemill.actors.split_result import SplitResult
from pipemill.actors.storage.filesystem import absolute

from pipemill.errors import ConfigError, RunError, explain_interrupt

from .config.job import Job
from .config.load import build_job
from .execution.placement import resolve_placement, run_splits, stage_of, uses_ray
from .execution.progress import Progress, waiting
from .execution.ray_cluster import check_input_stays, check_output_lasts, ray_session
from .output.dead_letter_reasons import NO_REASONS, collect_reasons
from .output.error_limit import check_at_the_end, check_on_the_way, error_limit_reached
from .output.job_record import save_token_budget
from .output.lease import Lease
from .output.run_report import Report, compute_metrics, count_output, unnamed_rows
from .output.split_plan import RowEstimate
from .planning.find_model import permanent_load_error
from .planning.infer_columns import infer_columns
from .prepare import PreparedJob, prepare


def run(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None = None,
    *,
    settings: list[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    **sections: Any,
) -> Report:
    """Runs a job to its end; called again, it does what is left.

    config: a YAML file, a mapping or a `Job`; without it the sections say everything.
    settings: "output.rows_per_part=300" and the like, over the config.
    columns: short for `input.columns`: the task's column names to the data's.
    sections: `task`, `model`, `input`, `output`, `parameters`, `batching`, `actors`,
        `pipeline_class`, as in a config; a path alone stands for `model`, `input` and `output`.

    Raises ConfigError before a model loads or Ray starts, if the job as written can't run, or
    once the model shows that it can't load; RunError if it stopped with rows left (the same call
    then resumes it), or if every row or more than `output.max_errors` failed (its `report` says
    why); RunInterrupted, a KeyboardInterrupt, if it was interrupted.
    """
    started = time.monotonic()
    job = build_job(config, settings or [], columns or {}, sections)
    check_output_lasts(job.output.path)
    check_input_stays(job.input.path)
    path, options = absolute(job.output.path), job.output.storage_options
    with explain_interrupt(), Lease(path, options) as lease:
        return _run(job, lease, started)


def _run(job: Job, lease: Lease, started: float) -> Report:
    prepared = prepare(job, lease)
    job = prepared.job
    exist = prepared.ledger.parts()
    done = [split for split in prepared.plan.splits if split.part in exist]
    todo = [split for split in prepared.plan.splits if split.part not in exist]
    before = prepared.ledger.tally(done)
    added: Counter[str] = Counter()
    if not prepared.asks_sample:
        place = resolve_placement(prepared.placement, job.actors, todo)
        prepared = replace(prepared, placement=place)
    with_ray = todo and uses_ray(prepared.placement)
    with ray_session(job.actors.cluster) if with_ray else nullcontext():
        if todo and prepared.asks_sample:
            prepared = _with_schema(job, prepared, todo)
        added = _work_off(job, prepared, todo, lease, before) if todo else added
    if added:
        save_token_budget(job, prepared.ledger, compute_metrics(added).get("max_tokens"))
    report = _report(prepared, before, added, time.monotonic() - started)
    check_at_the_end(job.output, report)
    return report


def _with_schema(job: Job, prepared: PreparedJob, todo: list[Split]) -> PreparedJob:
    """The columns that the task adds, asked of a sample once, and the same ever after."""
    with waiting("computing a sample for the result columns"):
        schema = infer_columns(
            prepared.load,
            prepared.source,
            todo,
            prepared.placement,
            job.actors,
            prepared.sink.attempts(),
        )
    prepared.plan.results = schema
    prepared.ledger.write_plan(prepared.plan)
    return replace(prepared, load=replace(prepared.load, schema=schema))


def _work_off(
    job: Job, prepared: PreparedJob, todo: list[Split], lease: Lease, before: Counter[str]
) -> Counter[str]:
    """Does these splits, and adds up what the workers counted. before: what earlier runs did."""
    totals: Counter[str] = Counter()
    estimate = RowEstimate(todo)
    troubles: list[str] = []
    lines = run_splits(
        prepared.placement, todo, prepared.load, prepared.source, prepared.sink, job.actors
    )
    # Closed here, while Ray is there: what it has open would start another one.
    stage = stage_of(prepared.placement, prepared.load, prepared.sink, job.actors)
    with (
        closing(lines),
        Progress(prepared.load.task, estimate.total(), before, stage) as progress,
    ):
        for result in lease.watch(lines):
            split = result.split
            if result.error is not None:
                if result.cause is not None:
                    raise _ended(job, result)
                troubles.append(f"{split.path} [{split.start}:{split.stop}]: {result.error}")
                if result.fatal:
                    break
                continue
            if result.rows is None:  # written by a late worker of a run before this one
                counts = prepared.ledger.tally([split])
            else:
                counts = Counter({"rows": result.rows, "dead": result.dead, **result.work})
            totals.update({"splits": 1, **counts})
            estimate.see(split, counts["rows"])
            progress.add(counts["rows"], counts["dead"], estimate.total())
            if totals["splits"] < len(todo):
                _check_dead(job, prepared, before + totals, before["rows"] + estimate.total())
    if troubles or totals["splits"] < len(todo):
        raise RunError(_unfinished(len(todo), totals["splits"], troubles))
    return totals


def _unfinished(splits: int, done: int, troubles: list[str]) -> str:
    reasons = troubles[:3] or ["Ray gave no reason"]
    if len(troubles) > 3:
        reasons.append(f"… and {len(troubles) - 3} more")
    left = f"{done} of {splits} splits are done; run again to do the others. What stopped them:"
    return "\n".join([left, *reasons])


def _ended(job: Job, result: SplitResult) -> RunError | ConfigError:
    """Return what to raise where running again would not help."""
    if result.cause == "library":
        return ConfigError(str(result.error))
    if result.cause == "model":
        return permanent_load_error(job.model.path, str(result.error))
    return RunError(f"{result.error}. Correct that row, or set output.on_error to dead_letter")


def _check_dead(job: Job, prepared: PreparedJob, totals: Counter[str], whole: int) -> None:
    """Stops a job that is simply wrong. whole: rows that there are to do."""
    wrong = check_on_the_way(job.output, totals["rows"], totals["dead"], whole)
    if wrong:
        raise error_limit_reached(
            wrong, collect_reasons(prepared.ledger, prepared.plan), totals["dead"]
        )


def _report(
    prepared: PreparedJob, before: Counter[str], added: Counter[str], seconds: float
) -> Report:
    whole, plan, ledger = before + added, prepared.plan, prepared.ledger
    return Report(
        notes=prepared.notes,
        seconds=round(seconds, 3),
        rows_per_second=round(added["rows"] / seconds, 2),
        output=ledger.path,
        splits=len(plan.splits),
        added={
            "rows": added["rows"],
            "done": added["rows"] - added["dead"],
            "dead": added["dead"],
            "splits": added["splits"],
        },
        **compute_metrics(added),
        **count_output(whole, collect_reasons(ledger, plan) if whole["dead"] else NO_REASONS),
        unnamed_input=unnamed_rows(ledger, plan),
        pooling=prepared.pooling,
    )
