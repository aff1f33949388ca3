"""Run a job, or finish one that was stopped: `pipemill.run`, `python -m pipemill.jobs.run`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pipemill.actors.split_result import SplitResult
from pipemill.actors.split_table import SplitTable
from pipemill.pipelines.library_settings import keep_settings

from pipemill.errors import ConfigError, RunError, explain_interrupt

from .config.check_arguments import check_on_changed
from .config.job import Job
from .config.load import build_job
from .config.sections import Sections, takes_sections
from .execution.placement import resolve_placement, uses_ray
from .execution.pool_size import describe_wait
from .execution.progress import waiting
from .execution.ray_cluster import ray_session, ray_until_end
from .execution.split_loop import SplitLoop, count_rows
from .output.dead_letter_reasons import collect_reasons
from .output.error_limit import check_at_the_end, check_on_the_way, explain_error_limit
from .output.lease import Lease
from .output.run_report import Report, compute_metrics, count_unnamed_rows, describe_output
from .output.split_plan import RowEstimate
from .planning.prepared_job import PreparedJob
from .planning.sampling.infer_columns import infer_columns
from .prepare import make_output_store, prepare
from .push import check_dataset_name, push
from .submission.working_copy import check_input_stays, check_output_lasts

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_sections
def run(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None = None,
    *,
    settings: list[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    push_to_hub: str | None = None,
    private: bool | None = None,
    on_changed: Literal["error", "reprocess"] = "error",
    **sections: Unpack[Sections],
) -> Report:
    """Run a job to its end; called again, do what is left.

    Args:
        config: a YAML file, a mapping or a `Job`; without it the sections say everything.
        settings: "output.rows_per_part=300" and the like, over the config.
        columns: short for `input.columns`: the task's column names to those of the data.
        push_to_hub: a dataset on the Hugging Face Hub to publish the rows in, once all are there,
            as `pipemill.push` does.
        private: whether that dataset is private if it is new.
        on_changed: what becomes of input files that changed since they were planned: an error, or
            "reprocess", which removes their results and computes them again.
        sections: `task`, `model`, `input`, `output`, `parameters`, `batching`, `actors`,
            `pipeline_class`, as in a config; a path alone stands for `model`, `input` and
            `output`.

    Returns:
        Counts over the whole output, and what this call added.

    Raises:
        ConfigError: before a model loads or Ray starts, if the job as written can't run; or when
            the model turns out not to load.
        RunError: if the run stopped with rows left (the same call then resumes it), if every
            row or more than `output.max_errors` failed (its `report` says why), or if the rows
            could not be published.
        RunInterrupted: a KeyboardInterrupt, if the run was interrupted.
    """
    started = time.monotonic()
    job = build_job(config, settings or [], columns or {}, sections)
    if push_to_hub is not None:
        check_dataset_name(push_to_hub)
    elif private is not None:
        raise ConfigError("private is about push_to_hub: name the dataset to publish in, too")
    check_on_changed(on_changed)
    check_output_lasts(job.output.path)
    check_input_stays(job.input.path)
    with (
        explain_interrupt(),
        keep_settings(),
        Lease(make_output_store(job)) as lease,
        ray_until_end(),
    ):
        report = _run(job, lease, started, on_changed == "reprocess")
    return report if push_to_hub is None else _publish(report, job, push_to_hub, private)


def _run(job: Job, lease: Lease, started: float, reprocess: bool) -> Report:
    prepared = prepare(job, lease, reprocess)
    job, ledger = prepared.job, prepared.ledger
    exist = ledger.parts()
    done, todo = prepared.plan.splits.divide(lambda split: split.part in exist)
    before = ledger.totals(done, prepared.sink.fingerprint)
    added: Counter[str] = Counter()
    place = resolve_placement(prepared.placement, job.actors, todo, prepared.is_static)
    prepared = replace(prepared, placement=place)
    with_ray = todo and uses_ray(prepared.placement)
    with ray_session(job.actors.cluster) if with_ray else nullcontext():
        if todo and prepared.asks_sample:
            prepared = _infer_columns(prepared, todo)
        if todo:
            added = _process(prepared, todo, lease, before)
    if replaced := prepared.plan.replaced:
        # A late worker of an earlier run may have written some after they were removed.
        ledger.remove_results(set(replaced) - {split.part for split in prepared.plan.splits})
    if added:
        _save_token_budget(prepared, added)
    if lease.is_held and lease.lost is None:  # else another process may be writing: a retry
        ledger.remove_unfinished()
    report = _report(prepared, before, added, time.monotonic() - started)
    check_at_the_end(job.output, report)
    return report


def _publish(report: Report, job: Job, name: str, private: bool | None) -> Report:
    options = job.output.storage_options
    try:
        published = push(job.output.path, name, private=private, storage_options=options)
    except RunError as error:
        raise RunError(str(error), report) from error
    return replace(report, published=published.url, storage_options=options)


def _infer_columns(prepared: PreparedJob, todo: SplitTable) -> PreparedJob:
    """Infer the columns that the task adds from a sample, once, and store them in the plan."""
    wait = describe_wait(prepared.job.actors) if uses_ray(prepared.placement) else None
    with waiting(wait or "computing a sample for the result columns"):
        schema = infer_columns(
            prepared.task,
            prepared.source,
            todo,
            prepared.placement,
            prepared.job.actors,
            prepared.sink.attempts(),
        )
    prepared.plan.results = schema
    prepared.ledger.write_plan(prepared.plan)
    return prepared.with_load(schema=schema)


def _process(
    prepared: PreparedJob, todo: SplitTable, lease: Lease, before: Counter[str]
) -> Counter[str]:
    """Process splits, and add up what the workers counted.

    Args:
        before: the totals of the parts that exist.
    """
    ledger, estimate = prepared.ledger, RowEstimate(todo)

    def count(result: SplitResult) -> Counter[str]:
        if result.rows is None:  # a late worker of an earlier run wrote the part
            return ledger.totals([result.split], prepared.sink.fingerprint)
        return count_rows(result)

    def check(totals: Counter[str]) -> None:
        _check_dead(prepared, before + totals, before["rows"] + estimate.total())

    loop = SplitLoop(
        work=prepared.work(),
        lease=lease,
        label=prepared.load.task,
        estimate=estimate,
        before=before,
        count=count,
        check=check,
        unfinished=lambda done, all: f"{done} of {all} splits are done; run again to do the others",
    )
    return loop.run(todo)


def _check_dead(prepared: PreparedJob, totals: Counter[str], whole: int) -> None:
    """Raise RunError for a job of which too many rows fail. whole: all rows that are to do."""
    wrong = check_on_the_way(prepared.job.output, totals["rows"], totals["dead"], whole)
    if wrong:
        reasons = collect_reasons(prepared.ledger, prepared.plan)
        raise explain_error_limit(wrong, reasons, totals["dead"])


def _save_token_budget(prepared: PreparedJob, added: Counter[str]) -> None:
    """Store the token budget that most splits settled on, for later runs."""
    record = prepared.ledger.read_job()
    if record is None:
        return
    updated = record.with_token_budget(prepared.job, compute_metrics(added).get("max_tokens"))
    if updated != record:
        prepared.ledger.write_job(updated)


def _report(
    prepared: PreparedJob, before: Counter[str], added: Counter[str], seconds: float
) -> Report:
    ledger, plan = prepared.ledger, prepared.plan
    return Report(
        notes=prepared.notes,
        **describe_output(ledger, plan, before + added, added, seconds),
        **compute_metrics(added),
        unnamed_input=count_unnamed_rows(ledger, plan),
        engine=prepared.engine,
        pooling=prepared.pooling,
        storage_options=prepared.job.output.storage_options,
    )
