"""Store rows that are no files in the output, where workers and later runs find them."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pipemill.actors.output.layout import STORED_INPUT
from pipemill.actors.storage.store import Store

from pipemill.errors import ConfigError, RunError, StoreError

from ..rows.held_rows import HeldRows, SampleSize, WrittenRows
from ..rows.lake_tables import find_lake_table
from ..rows.standard_input import StandardInput, check_same_input

if TYPE_CHECKING:
    from ..config.job import Job
    from .ledger import Ledger

_COMPLETE = "_complete.json"
# What `preview`, `plan` and `tune` look at.
_SAMPLE = SampleSize(rows=10_000, bytes=2**28)


def with_stored_rows(job: Job, ledger: Ledger) -> Job:
    """Return the job; one whose input is no path reads it from the output instead.

    What is not there yet is written: to a folder that only this call writes to, and whose name is
    recorded when it is complete. Raises ConfigError, RunError.
    """
    rows = job.input.path
    if not isinstance(rows, HeldRows):
        return job
    folder, limit = _name_folder(rows), job.input.limit
    record = _read_record(folder, limit, ledger)
    if record is None:
        record = _store_rows(rows, job.input.format, limit, ledger)
    elif isinstance(rows, StandardInput):
        check_same_input(record["digest"], None if record["whole"] else record["bytes"])
    path = "/".join(filter(None, [ledger.path.rstrip("/"), folder, record.get("folder")]))
    return _make_reading_job(job, path, record.get("format", "parquet"), job.output.storage_options)


def with_table(job: Job) -> Job:
    """Return the job; one whose path is that of a Delta, Iceberg or Lance table holds its rows."""
    section = job.input
    table = find_lake_table(section.path, section.format, section.storage_options)
    if table is None:
        return job
    update = {"path": table, "format": "auto"}
    return job.model_copy(update={"input": section.model_copy(update=update)})


def needs_storing(job: Job, ledger: Ledger) -> bool:
    """Return whether `with_stored_rows` has something to write."""
    rows, limit = job.input.path, job.input.limit
    return isinstance(rows, HeldRows) and _read_record(_name_folder(rows), limit, ledger) is None


def note_on_stream(path: object) -> str | None:
    """Return what a user may not expect of an input that was stored before, if it is a stream."""
    if not isinstance(path, HeldRows) or not path.is_stream:
        return None
    return f"the rows are those that this output stored of {path.name} before"


@dataclass(frozen=True, kw_only=True)
class InputSample:
    """A job whose input can be read without its output.

    Attributes:
        job: reads files.
        notes: what the user should know about them.
        rows: how many rows the whole input has; None if the files are the whole input, or if it
            is not known.
    """

    job: Job
    notes: tuple[str, ...] = ()
    rows: int | None = None


@contextmanager
def sample_input(job: Job) -> Iterator[InputSample]:
    """Yield the job; one whose input is no path reads the first rows from a temporary folder.

    Raises ConfigError, RunError.
    """
    job = with_table(job)
    rows = job.input.path
    if not isinstance(rows, HeldRows):
        yield InputSample(job=job)
        return
    with tempfile.TemporaryDirectory(prefix="pipemill-") as folder:
        limit = job.input.limit
        most = replace(_SAMPLE, rows=min(limit or _SAMPLE.rows, _SAMPLE.rows))
        written = _write(rows, Store(folder), "input", job.input.format, most)
        reading = _make_reading_job(job, f"{folder}/input", written.format, {})
        if written.whole or (limit is not None and written.rows == limit):
            yield InputSample(job=reading)
            return
        first = "" if written.rows is None else f" {written.rows:,}"
        note = f"only the first{first} rows of {rows.name} were looked at"
        if rows.count is None:
            note += "; how many it has is not known"
        yield InputSample(job=reading, notes=(note,), rows=rows.count)


def _make_reading_job(job: Job, path: str, format: str, options: dict[str, Any]) -> Job:
    stored = {"path": path, "format": format, "storage_options": options}
    return job.model_copy(update={"input": job.input.model_copy(update=stored)})


def _name_folder(rows: HeldRows) -> str:
    return f"{STORED_INPUT}/{rows.identity}"


def _read_record(folder: str, limit: int | None, ledger: Ledger) -> dict[str, Any] | None:
    """Return what is stored of some rows; None if that is less than a job reads."""
    data = ledger.read(f"{folder}/{_COMPLETE}")
    record = None if data is None else json.loads(data)
    stored = None if record is None else record.get("limit")
    return None if stored is not None and (limit is None or limit > stored) else record


def _store_rows(rows: HeldRows, format: str, limit: int | None, ledger: Ledger) -> dict[str, Any]:
    folder = _name_folder(rows)
    with suppress(Exception):  # what is left of a run that was killed is never read
        ledger.store.filesystem.rm(ledger.store.locate(folder), recursive=True)
    attempt = uuid.uuid4().hex[:12]
    most = None if limit is None else SampleSize(rows=limit)  # a stream may never end
    written = _write(rows, ledger.store, f"{folder}/{attempt}", format, most)
    record = {**asdict(written), "folder": attempt, "snapshot": rows.snapshot}
    # What is piped is a file: where its rows are not lines, nobody counts them before it is read.
    record["limit"] = None if isinstance(rows, StandardInput) and written.whole else limit
    # A run that was asleep while another one took over must not replace what that one stored.
    stored = _read_record(folder, limit, ledger)
    if stored is not None:
        return stored
    ledger.write(f"{folder}/{_COMPLETE}", json.dumps(record).encode())
    return record


def _write(
    rows: HeldRows, store: Store, folder: str, format: str, most: SampleSize | None = None
) -> WrittenRows:
    try:
        return rows.write(store, folder, format, most)
    except (ConfigError, RunError, StoreError):
        raise
    except Exception as error:  # filesystems and libraries raise various exceptions
        raise ConfigError(
            f"can't store {rows.name} in {store.path}: {type(error).__name__}: {error}"
        ) from error
