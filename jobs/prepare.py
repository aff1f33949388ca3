"""Decide everything that can be decided before a model loads or Ray starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipemill.actors.output.layout import STATE
from pipemill.actors.storage.filesystem import explain_no_folder, make_absolute
from pipemill.actors.storage.store import Store

from pipemill.errors import ConfigError

from .config.job import Job
from .execution.choose_device import choose_device, divide_nodes
from .execution.single_process import is_small
from .output.dataset_card import write_card
from .output.job_record import JobRecord
from .output.lease import Lease
from .output.ledger import Ledger
from .output.split_plan import NOTHING
from .output.stored_rows import needs_storing, note_on_stream, with_stored_rows, with_table
from .planning.build_load import build_load_task
from .planning.build_plan import build_plan
from .planning.choose_engine import choose_dtype, computes_on_cpu
from .planning.find_model import (
    check_fit,
    digest_model,
    name_model,
    resolve_model,
    with_digests,
)
from .planning.fingerprint import (
    check_fingerprint,
    decide_results,
    find_changed_fields,
    hash_fields,
)
from .planning.missing_libraries import check_early_requirements, check_requirements
from .planning.model_conventions import follow_conventions
from .planning.models.save_model import needs_model, with_stored_model
from .planning.prepared_job import PreparedJob, build_prepared_job
from .planning.resolve_task import (
    ResolvedTask,
    list_tasks,
    resolve_task,
    with_steps,
)


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A job that was prepared from what the output held, before anything is written.

    Attributes:
        decides: what decides the results, by name.
        is_new: whether the output has no record of this job.
        plan_changed: whether the plan must be written.
        has_work: whether splits are left, or may be.
    """

    prepared: PreparedJob
    decides: Mapping[str, Any]
    is_new: bool
    plan_changed: bool
    has_work: bool


def prepare(job: Job, lease: Lease | None = None, reprocess: bool = False) -> PreparedJob:
    """Prepare a job, and write its plan and its record to the output. Raises ConfigError.

    Args:
        lease: acquired before anything is written, if something is left to do.
        reprocess: whether the results of files that changed are removed, and computed again.
    """
    _check_places(job)
    job = with_table(job)
    ledger = Ledger(make_output_store(job))
    # Libraries are checked before all weights are read for their digest.
    job, task = resolve_job(job, job.actors.placement if ledger.read_job() is None else None)
    weights = digest_model(job.model, task.model)
    task = with_digests(task)
    while True:
        snapshot = ledger.snapshot()
        held = lease is None or lease.is_held
        draft = _draft_job(job, task, weights, ledger, lease, reprocess)
        if lease is not None and draft.has_work:
            lease.acquire()
            if not held and ledger.snapshot() != snapshot:
                continue  # another run started and ended in the meantime
        _write(draft)
        return draft.prepared


def prepare_without_output(job: Job) -> PreparedJob:
    """Prepare a job as if its output were empty; the output is neither read nor written.

    The model is not compiled: for a few rows that would take most of the time.
    """
    ledger = Ledger(make_output_store(job))
    job, task = resolve_job(job, "local", here=True)
    check_tasks_fit(job, task, here=True)
    plan, _ = build_plan(job, task, ledger)
    prepared = build_prepared_job(job, task, plan, ledger, {})
    check_libraries(prepared, task, "local")
    return prepared.with_load(compiles=False)


def make_output_store(job: Job) -> Store:
    """Return the folder that a job writes to. Raises ConfigError if none can be there."""
    path = make_absolute(job.output.path)
    if reason := explain_no_folder(path):
        raise ConfigError(f"output.path {job.output.path!r}: {reason}; name another folder")
    return Store(path, job.output.storage_options)


def _check_places(job: Job) -> None:
    for model in (str(one.model.path) for one in job.each_task()):
        if f"{make_absolute(job.output.path)}/".startswith(f"{make_absolute(model).rstrip('/')}/"):
            raise ConfigError(
                f"output.path {job.output.path} lies in the model's folder, of which every file "
                "decides the results: name a folder elsewhere"
            )


def resolve_job(
    job: Job,
    placement: str | None,
    *,
    here: bool = False,
    decides: Mapping[str, Any] | None = None,
) -> tuple[Job, ResolvedTask]:
    """Return the job with its device, and its task and model. Raises ConfigError.

    Args:
        placement: where it runs, to check the libraries that are needed there; None for no check.
        here: whether only this process computes.
        decides: what decides the results of an output, as for `follow_conventions`.
    """
    tasks = [
        _resolve_one(one, placement, None if job.tasks else decides) for one in job.each_task()
    ]
    on_cpu = [computes_on_cpu(one, task) for one, task in zip(job.each_task(), tasks, strict=True)]
    job = choose_device(job, *(task.model for task in tasks), here=here, on_cpu=all(on_cpu))
    return divide_nodes(job, here=here), with_steps(job, tasks)


def _resolve_one(
    job: Job, placement: str | None, decides: Mapping[str, Any] | None
) -> ResolvedTask:
    task = resolve_task(job, resolve_model(job.model))
    if placement is not None:
        check_early_requirements(job, task, placement)
    task = follow_conventions(job, task, decides)
    if task.is_static and (job.model.engine != "auto" or job.model.dtype == "int8"):
        raise ConfigError(
            f"{job.model.path} holds static embeddings, which are looked up in a table: leave "
            "model.engine and model.dtype out"
        )
    return task


def _draft_job(
    job: Job,
    task: ResolvedTask,
    weights: str,
    ledger: Ledger,
    lease: Lease | None,
    reprocess: bool,
) -> _Draft:
    """Prepare the job from what the output holds now. Writes only objects of the job."""
    record, parts = ledger.read_job(), ledger.parts()
    # The dtype of parts that exist holds, even if the device is another one now.
    decides = decide_results(job, task, weights, record.decides if record and parts else {})
    record = _record_of_job(job, ledger, record, bool(parts), decides)
    if record is not None:  # a field that is null may be missing there
        decides = dict(record.decides)
    stores_rows = lease is not None and needs_storing(job, ledger)
    stores = stores_rows or (lease is not None and needs_model(job, ledger, weights))
    if lease is not None and stores:
        check_tasks_fit(job, task)
        lease.acquire()
    note = None if stores_rows else note_on_stream(job.input.path)
    job, task = _take_model_of_output(job, task, ledger, weights)
    job = with_stored_rows(job, ledger)
    stored = ledger.read_plan() if record else None
    plan, changed = build_plan(job, task, ledger, stored, reprocess)
    prepared = build_prepared_job(job, task, plan, ledger, decides)
    if note is not None:
        prepared = replace(prepared, notes=(*prepared.notes, note))
    if plan.is_of_nothing and prepared.asks_sample:
        raise ConfigError(
            f"the input has no rows, and only answers to rows show which columns {task.spec.name} "
            "adds: declare them in output.schema"
        )
    if record and not task.steps and (tokens := record.token_budget(job)):
        prepared = prepared.with_load(max_tokens=tokens)
    has_work = changed or not record or any(split.part not in parts for split in plan.splits)
    if has_work:
        check_libraries(prepared, task, prepared.placement)
    if has_work and not parts and not stores:  # an output with parts was checked when it started
        prepared = _check_fits_or_let_worker(prepared, task)
    return _Draft(
        prepared=prepared,
        decides=decides,
        is_new=record is None,
        plan_changed=changed,
        has_work=has_work,
    )


def _take_model_of_output(
    job: Job, task: ResolvedTask, ledger: Ledger, weights: str
) -> tuple[Job, ResolvedTask]:
    """Return a job and a task whose model, if it is in memory, is read from the output."""
    stored = with_stored_model(job, ledger, task.model, weights)
    if stored is job:
        return job, task
    return stored, replace(task, model=resolve_model(stored.model))


def _write(draft: _Draft) -> None:
    """Write the card, the plan and the record of a job, as far as they are new."""
    ledger, plan = draft.prepared.ledger, draft.prepared.plan
    if draft.has_work:
        write_card(ledger)
    if draft.plan_changed:
        if NOTHING.part in ledger.parts() and not plan.is_of_nothing:
            ledger.remove(NOTHING.part)
        # Before the plan: parts that it does not name would be duplicates for readers.
        ledger.remove_results(plan.replaced)
        ledger.write_plan(plan)
    if draft.is_new:
        job = draft.prepared.job
        ledger.write_job(JobRecord.of(job, draft.decides, hash_fields(draft.decides)))


def _record_of_job(
    job: Job, ledger: Ledger, record: JobRecord | None, has_parts: bool, decides: Mapping[str, Any]
) -> JobRecord | None:
    """Return the record in the output if it is that of this job.

    Raises ConfigError if the output holds parts of another job, or files of another program.
    """
    if record is None:
        _check_unused(ledger)
        return None
    if not has_parts and find_changed_fields(record.decides, decides):  # such a job may be changed
        return None
    check_fingerprint(record, decides, job, ledger.path)
    return record


def _check_unused(ledger: Ledger) -> None:
    foreign = [name for name in ledger.files() if name != STATE and not name.startswith(".")]
    if foreign:
        raise ConfigError(
            f"the output {ledger.path} is not empty and was not written by pipemill "
            f"(it holds {', '.join(sorted(foreign)[:3])}): name an empty or a new folder"
        )


def _check_fits_or_let_worker(prepared: PreparedJob, task: ResolvedTask) -> PreparedJob:
    """Check that the model can do the task, or let the worker do so if that is faster."""
    if is_small(prepared.job.actors, prepared.plan.splits, prepared.is_static):
        # The one worker process starts at once, and imports torch anyway.
        return prepared.with_load(checks_fit=True)
    check_tasks_fit(prepared.job, task)
    return prepared


def check_libraries(prepared: PreparedJob, task: ResolvedTask, placement: str) -> None:
    """Raise ConfigError for libraries that a job's tasks need. placement: where it runs."""
    tasks = list_tasks(prepared.job, task)
    for (job, own), load in zip(tasks, prepared.load.loads, strict=True):
        check_requirements(job, own, dict(load.columns), placement)


def check_tasks_fit(job: Job, task: ResolvedTask, here: bool = False) -> None:
    """Raise ConfigError for a model that can't do its task. here: as for `check_fit`."""
    for one, own in list_tasks(job, task):
        check_task_fits(one, own, here)


def check_task_fits(job: Job, task: ResolvedTask, here: bool = False) -> None:
    """Raise ConfigError for a model that can't do the task."""
    columns = {name: own for name, own in job.input.columns.items() if own is not None}
    dtype = choose_dtype(job, task.spec, task.is_user)
    load = build_load_task(job, task, dtype, columns)
    try:
        check_fit(load, here or job.actors.placement == "local")
    except ConfigError as error:
        folder = task.model.root or task.model.path
        raise ConfigError(name_model(str(error), job.model, folder)) from None
