"""`pipemill retry`: compute the dead letters again, and put the answers where they belong."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipemill.actors.output.part_rewriter import DeadRowSource, PartRewriter
from pipemill.actors.output.state_table import dead_letters
from pipemill.actors.split import Split
from pipemill.actors.split_table import SplitTable
from pipemill.actors.storage.backoff import retry_on_driver
from pipemill.actors.storage.input_file import InputFile
from pipemill.actors.storage.listing import stat
from pipemill.actors.storage.shared_archive import forget_archives
from pipemill.pipelines.library_settings import keep_settings

from pipemill.errors import ConfigError, RunError, explain_interrupt

from .config.job import Job
from .config.load import build_job
from .config.sections import Sections, takes_sections
from .execution.placement import resolve_placement, uses_ray
from .execution.progress import log
from .execution.ray_cluster import ray_session, ray_until_end
from .execution.split_loop import SplitLoop
from .output.error_limit import check_at_the_end
from .output.job_record import JobRecord
from .output.lease import Lease
from .output.ledger import Ledger, open_output
from .output.run_report import Report, describe_output
from .output.split_plan import Plan, RowEstimate
from .output.stored_rows import with_stored_rows, with_table
from .output.text_table import format_count
from .planning.find_model import digest_model, resolve_model, with_digests
from .planning.fingerprint import check_fingerprint, decide_results, hash_retry
from .planning.models.save_model import needs_model, with_stored_model
from .planning.prepared_job import PreparedJob, build_prepared_job
from .planning.resolve_task import ResolvedTask
from .prepare import check_libraries, make_output_store, resolve_job

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Settings that a retry may change: with other ones dead rows may be computed. The parts record it.
_MAY_CHANGE, _OF_EACH_TASK = ("transformers", "torch"), ("parameters", "model.dtype")


@takes_sections
def retry(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None = None,
    *,
    settings: list[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    **sections: Unpack[Sections],
) -> Report:
    """Compute the dead letters of an output again, and put the answers among the others.

    The arguments are those of `run`, and describe the same job; its parameters, `model.dtype`,
    `batching` and `actors` may differ. In the report `added` counts the rows that were tried; a
    row that fails again stays a dead letter, and its `attempts` grow by one.

    Returns:
        Counts over the whole output, and what this call added.

    Raises:
        ConfigError: before a model loads or Ray starts, if the job is not that of the output; or
            when its model turns out not to load.
        RunError: if the retry stopped (the same call then resumes it), if the run has rows left,
            or if too many rows are still dead (its `report` says why).
    """
    started = time.monotonic()
    job = build_job(config, settings or [], columns or {}, sections)
    with (
        explain_interrupt(),
        keep_settings(),
        Lease(make_output_store(job), "retry") as lease,
        ray_until_end(),
    ):
        ledger, record, plan = open_output(job.output.path, job.output.storage_options)
        prepared, task, decides = _reopen(job, ledger, record, plan, lease)
        job = prepared.job
        exist = ledger.parts()
        done = plan.splits.select(lambda split: split.part in exist)
        left, added = len(plan.splits) - len(done), Counter[str]()
        dead = _count_dead_rows(ledger, done)
        if todo := done.select(lambda split: split.number in dead):
            todo = _leave_lost_rows(ledger, plan, todo, with_stored_rows(job, ledger))
            check_libraries(prepared, task, prepared.placement)
            lease.acquire()
            _record_settings(ledger, prepared.sink.fingerprint, decides)
            tried = sum(dead[split.number] for split in todo)
            added = _process(prepared, todo, tried, lease)
        _remove_answered_letters(ledger, done, lease)
        if lease.is_held and lease.lost is None:
            ledger.remove_unfinished()
        seconds = time.monotonic() - started
        report = Report(
            **describe_output(ledger, plan, ledger.totals(done), added, seconds),
            engine=prepared.engine,
            pooling=prepared.pooling,
            storage_options=prepared.job.output.storage_options,
        )
    if left:
        raise RunError(
            f"{added['done']:,} of {added['rows']:,} dead letters have an answer now. But {left} "
            f"of {len(plan.splits)} splits have no part yet: do them with run"
        )
    check_at_the_end(job.output, report)
    return report


def _reopen(
    job: Job, ledger: Ledger, record: JobRecord, plan: Plan, lease: Lease
) -> tuple[PreparedJob, ResolvedTask, dict[str, Any]]:
    """Return the job over the stored plan, its task, and what decides its results now.

    Raises ConfigError if the job is not that of the output.
    """
    job = with_table(job)
    job, task = resolve_job(job, None)
    weights = digest_model(job.model, task.model)
    task = with_digests(task)
    decides = decide_results(job, task, weights, record.decides)
    same = {**decides, **{name: record.decides.get(name) for name in _list_changeable(record)}}
    check_fingerprint(record, same, job, ledger.path)
    if needs_model(job, ledger, weights):  # the run was given a folder with it
        lease.acquire()
    job = with_stored_model(job, ledger, task.model, weights)
    task = replace(task, model=resolve_model(job.model))
    prepared = build_prepared_job(with_stored_rows(job, ledger), task, plan, ledger, decides)
    sink = replace(prepared.sink, fingerprint=hash_retry(decides, record))
    return replace(prepared, sink=sink), task, decides


def _count_dead_rows(ledger: Ledger, done: Sequence[Split]) -> dict[int, int]:
    """Return how many dead rows each split has that has any, by its number."""
    footers = zip(done, ledger.footers(done), strict=True)
    return {split.number: footer.dead for split, footer in footers if footer.dead}


def _record_settings(ledger: Ledger, fingerprint: str, decides: Mapping[str, Any]) -> None:
    """Add the settings of this retry to job.json; the footers of parts name their fingerprint."""
    record = ledger.read_job()
    if record is None or fingerprint in {record.fingerprint, *record.retries}:
        return
    settings = {name: decides.get(name) for name in _list_changeable(record)}
    ledger.write_job(record.with_retry(fingerprint, settings))


def _list_changeable(record: JobRecord) -> list[str]:
    """Return the names of the settings that a retry may change."""
    of_tasks = [prefix + name for prefix, _ in record.entries for name in _OF_EACH_TASK]
    return [*of_tasks, *_MAY_CHANGE]


def _leave_lost_rows(ledger: Ledger, plan: Plan, splits: SplitTable, job: Job) -> SplitTable:
    """Return the splits whose files are all there; say which files are not.

    A file that is a row of a bundle may be missing: its row fails again.

    Raises ConfigError if there are no such splits, and for a file that is not the planned one.
    """

    def look(path: str) -> InputFile | None:
        with suppress(FileNotFoundError):
            return retry_on_driver(lambda: stat(path, job.input.storage_options), path)
        return None

    paths = list(dict.fromkeys(file.path for split in splits for file in split.files()))
    forget_archives()
    found = ledger.map_parallel(look, paths)
    plan.new_files([file for file in found if file is not None])
    gone = {path for path, file in zip(paths, found, strict=True) if file is None}
    whole, lost = splits.divide(
        lambda split: split.has_row_per_file or gone.isdisjoint(file.path for file in split.files())
    )
    if not lost:
        return splits
    path = next(file.path for split in lost for file in split.files() if file.path in gone)
    if not whole:
        raise ConfigError(
            f"{path} no longer exists, and its dead letters can't be read again: put it back"
        )
    log(
        f"the dead letters of {format_count(len(lost), 'split')} are left as they are, since "
        f"{path} no longer exists: put it back, and retry again"
    )
    return whole


def _process(prepared: PreparedJob, splits: SplitTable, dead: int, lease: Lease) -> Counter[str]:
    """Compute the dead rows of splits, and count them: rows, done, dead, splits.

    Args:
        dead: how many dead rows there are.
    """
    sink = PartRewriter(**vars(prepared.sink))
    placement = resolve_placement(prepared.placement, prepared.job.actors, splits)
    loop = SplitLoop(
        work=replace(
            prepared.work(),
            placement=placement,
            source=DeadRowSource(prepared.source, sink),
            sink=sink,
        ),
        lease=lease,
        label=f"retry of {prepared.load.task}",
        estimate=RowEstimate.of_known(dead),
        unfinished=lambda done, all: (
            f"the dead letters of {done} of {all} splits were tried; retry again to do the others"
        ),
    )
    with ray_session(prepared.job.actors.cluster) if uses_ray(placement) else nullcontext():
        totals = loop.run(splits)
    totals["done"] = totals["rows"] - totals["dead"]
    return totals


def _remove_answered_letters(ledger: Ledger, done: Sequence[Split], lease: Lease) -> None:
    """Remove files of dead letters that all have an answer: a retry was killed before it could."""
    names = ledger.dead_letter_files()
    some = [split for split in done if split.part in names]
    for split, footer in zip(some, ledger.footers(some), strict=True):
        if not footer.dead:
            lease.acquire()
            dead_letters(ledger.store, split.part).remove()
