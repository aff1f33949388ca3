"""Split the input of a job into the plan of its output, or add new files to the stored plan."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pipemill.actors.sources.bad_file import NothingToRead
from pipemill.actors.sources.base import Source
from pipemill.actors.sources.files import FilesSource
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.registry import find_source
from pipemill.actors.sources.split_ranges import SplitRange
from pipemill.actors.split import Split
from pipemill.actors.storage.backoff import retry_on_driver
from pipemill.actors.storage.filesystem import make_absolute, open_filesystem
from pipemill.actors.storage.input_file import InputFile
from pipemill.actors.storage.partitions import is_partition_field, read_partition_values
from pipemill.actors.task import MEDIA
from pipemill.pipelines.task_columns import map_source_names

from pipemill.errors import ConfigError

from ..output.ledger import Ledger
from ..output.split_plan import NOTHING, Plan
from .find_inputs import list_files
from .resolve_task import ResolvedTask, find_reading, list_tasks

if TYPE_CHECKING:
    from ..config.job import Job

# The most rows of a split for static embeddings, and the most bytes of input.
_STATIC_ROWS, _STATIC_BYTES = 16384, 16 * 2**20


def build_plan(
    job: Job,
    task: ResolvedTask,
    ledger: Ledger,
    stored: Plan | None = None,
    reprocess: bool = False,
) -> tuple[Plan, bool]:
    """Return the plan of an output, and whether it differs from the stored one.

    The stored plan gets splits for files that are new. Without one, or if nothing was done of a
    plan for another input, the plan is new. Writes nothing.

    Args:
        stored: the plan in the output.
        reprocess: whether files that changed get new splits in place of their old ones.

    Raises:
        ConfigError: for an input that can't be read, or that does not fit the stored plan.
    """
    files, format, notes = list_files(
        job.input.path,
        job.input.format,
        job.input.storage_options,
        None if ledger.is_stored_input(job.input.path) else ledger.path,
        job.output.storage_options,
        stored,
        _choose_companion(job, task),
    )
    reading = find_reading(job, task)
    source = open_source(format, job.input.storage_options, reading=reading)
    if stored is not None and _is_of_another_input(job, ledger, stored, files):
        stored = None
    if stored is None or not stored.splits or stored.is_of_nothing:
        # An input without rows decides nothing, not even its columns.
        plan, changed = _make_plan(job, task, source, files, format, stored)
    else:
        plan, changed = _extend_plan(
            job, task, source, files, format, stored, ledger if reprocess else None
        )
    plan.notes = notes
    return plan, changed


def _choose_companion(job: Job, task: ResolvedTask) -> str | None:
    """Return the format of the rows in a folder of media and texts; None if it may be either."""
    inputs = (column for _, own in list_tasks(job, task) for column in own.spec.inputs)
    return FilesSource.name if any(column.kind in MEDIA for column in inputs) else None


def _make_plan(
    job: Job,
    task: ResolvedTask,
    source: Source,
    files: list[InputFile],
    format: str,
    stored: Plan | None,
) -> tuple[Plan, bool]:
    plan = Plan(format, source.infer_schema(files))
    # Files may hold no row though they have bytes: blank lines, or an empty array.
    if not find_source(format).columns_from_rows or not all(map(is_partition_field, plan.schema)):
        plan.add(_cut(job, task, source, files))
    if stored is not None and stored.splits and not plan.splits:
        return stored, False
    if not plan.splits:
        plan.add([SplitRange(NOTHING.file, 0, 0, 0)])
    return plan, True


def _extend_plan(
    job: Job,
    task: ResolvedTask,
    source: Source,
    files: list[InputFile],
    format: str,
    plan: Plan,
    reprocessed: Ledger | None,
) -> tuple[Plan, bool]:
    """Return the stored plan with splits for new files, and whether it changed.

    reprocessed: the output, if its files that changed are computed again.
    """
    changed: list[InputFile] = []
    new = plan.new_files(files, None if reprocessed is None else changed)
    if format != plan.format:
        raise ConfigError(f"the input was {plan.format} when it was planned, and is {format} now")
    if job.input.limit:
        _check_still_there(plan, files)
        if changed:
            raise ConfigError(
                f"{changed[0].path} has changed, and with input.limit it can't be computed again: "
                "other rows would be within the limit; name another output"
            )
        return plan, False
    before = len(plan.splits)
    again, lost = list[InputFile](), set[int]()
    if reprocessed is not None:
        again = _share_splits(plan, files, changed, reprocessed)
        lost, left = _find_lost(job, plan, files, reprocessed)
        known = {file.path for file in again}
        again += [file for file in left if file.path not in known]
    if new or again:
        # Files without a row are never planned, and bad ones have no columns.
        with suppress(NothingToRead):
            reads = [
                map_source_names(own.spec.inputs, one.input.columns).values()
                for one, own in list_tasks(job, task)
            ]
            read = [*again, *new]
            _check_columns(plan, source.infer_schema(read), read, set().union(*reads))
    if again or lost:
        paths = {file.path for file in again}

        def is_replaced(split: Split) -> bool:
            return split.number in lost or any(file.path in paths for file in split.files())

        plan.replan(is_replaced, _cut(job, task, source, again) if again else [])
    plan.add(_cut(job, task, source, new) if new else [])
    return plan, bool(again or lost) or len(plan.splits) > before


def _find_lost(
    job: Job, plan: Plan, files: list[InputFile], ledger: Ledger
) -> tuple[set[int], list[InputFile]]:
    """Find the splits that no run can do: they are left, and a file of theirs is gone.

    A file that is a row of a bundle is none of these: its row becomes a dead letter.

    Returns:
        Their numbers, and the other files of those that are bundles.
    """
    exists = {file.path: True for file in files}
    done = ledger.parts()
    lost: set[int] = set()
    left: list[InputFile] = []
    for split in plan.splits:
        if not split.path or split.has_row_per_file or split.part in done:
            continue
        for path in (file.path for file in split.files() if file.path not in exists):
            filesystem, inner = open_filesystem(path, job.input.storage_options)
            exists[path] = retry_on_driver(partial(filesystem.exists, inner), path)
        if not all(exists[file.path] for file in split.files()):
            lost.add(split.number)
            left += [file for file in split.bundle if exists[file.path]]
    return lost, left


def _share_splits(
    plan: Plan, files: list[InputFile], changed: list[InputFile], ledger: Ledger
) -> list[InputFile]:
    """Return the files that have splits in common with those that changed, and these."""
    paths = {file.path for file in changed}
    done, kept = ledger.parts() if paths else (), set[str]()
    for split in plan.splits if paths else ():
        if split.bundle and any(file.path in paths for file in split.bundle):
            own = {file.path for file in split.bundle}
            paths |= own
            kept |= own if split.part in done else set()
    again = [file for file in files if file.path in paths]
    if gone := kept - {file.path for file in again}:
        raise ConfigError(
            f"{min(gone)} is not in the input, and shares a part with {changed[0].path}, which has "
            "changed: its rows would be lost; put it back, or name another output"
        )
    return again


def _cut(
    job: Job, task: ResolvedTask, source: Source, files: list[InputFile]
) -> Iterable[SplitRange]:
    size, limit = job.output.rows_per_part, job.input.limit
    if size != "auto":
        return source.plan_splits(files, size, limit)
    splits = source.plan_splits(files, None, limit)
    if not task.is_static:
        return splits
    splits = list(splits)
    rows = sum(split.rows or 0 for split in splits)
    if rows:
        # Thousands of rows take a tenth of a second, and each split some hundredths.
        most = _STATIC_BYTES * rows // max(sum(file.size for file in files), 1)
        if (each := min(_STATIC_ROWS, most)) > rows // len(splits):
            return source.plan_splits(files, each, limit)
    return splits


def _check_still_there(plan: Plan, files: list[InputFile]) -> None:
    """Raise ConfigError if a planned file is gone.

    With a limit new files add nothing, so another input would go unnoticed.
    """
    listed = {file.path for file in files}
    gone = {file.path for file in plan.files() if file.path not in listed}
    if gone:
        raise ConfigError(f"{min(gone)}, which this output was planned for, is not in the input")


def _is_of_another_input(job: Job, ledger: Ledger, plan: Plan, files: list[InputFile]) -> bool:
    """Return whether the input has none of the planned files, and no part exists yet.

    Raises ConfigError if parts exist. The files of the same folder or pattern may change over
    time: then the report names the old ones.
    """
    listed = {file.path for file in files}
    unnamed = (file.path for file in plan.files() if file.path not in listed)
    plan.unnamed = list(dict.fromkeys(unnamed))
    if not plan.unnamed or any(file.path in listed for file in plan.files()):
        return False
    if not ledger.parts():
        return True
    record = ledger.read_job()
    then = None if record is None else record.input_path
    if job.input.limit is None and _list_paths(then) != _list_paths(job.input.path):
        plan.new_files(files)  # raises for a file that only has another name
        raise ConfigError(
            f"{ledger.path} holds rows of another input ({_name_some(plan.unnamed)}), and none of "
            "its files is in this one: name another output, or name the old files too to add these "
            "to them"
        )
    return False


def _list_paths(given: Any) -> set[str]:
    return {make_absolute(path) for path in ([given] if isinstance(given, str) else given or [])}


def _name_some(paths: list[str]) -> str:
    return f"{paths[0]} and {len(paths) - 1:,} more files" if len(paths) > 1 else paths[0]


def _check_columns(plan: Plan, schema: pa.Schema, new: list[InputFile], reads: set[str]) -> None:
    """Raise ConfigError for new files that lack columns of the plan.

    Args:
        reads: columns that the task reads.
    """
    for field in filter(is_partition_field, plan.schema):
        try:
            read_partition_values(field, [file.path for file in new])
        except ValueError as error:
            raise ConfigError(
                f"{error}: take it out of the input, or name another output"
            ) from None
    inside = {field.name for field in plan.schema if not is_partition_field(field)}
    missing = inside - set(schema.names)
    allowed = find_source(plan.format).missing_columns
    if allowed == "unread":
        missing &= reads
    if missing and allowed != "any":
        raise ConfigError(
            f"new input files ({new[0].path}, …) lack the columns {', '.join(sorted(missing))} "
            "that this output was planned with: take them out of the input"
        )
