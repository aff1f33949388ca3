"""What an output holds: its plan, its job, and the parts that exist. Their splits are done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from fsspec.implementations.local import LocalFileSystem
from pipemill.actors.batch import LEFT_OUT, add_counts
from pipemill.actors.output.layout import (
    ATTEMPTS,
    DEAD_LETTERS,
    JOB,
    LOG,
    PLAN,
    STATE,
    STORED_INPUT,
)
from pipemill.actors.output.part_file import read_footer, read_footer_end
from pipemill.actors.output.part_footer import ROW_COUNTS, PartFooter
from pipemill.actors.output.state_table import StateTable
from pipemill.actors.split import Split
from pipemill.actors.storage.backoff import is_of_store, retry_on_driver
from pipemill.actors.storage.filesystem import make_absolute
from pipemill.actors.storage.parallel import map_parallel
from pipemill.actors.storage.storage_options import explain_storage_error
from pipemill.actors.storage.store import FileStamp, Store

from pipemill.errors import ConfigError, RunError, describe_error, explain_no_write

from ..config.check_arguments import check_options
from .footer_cache import LEAST_PARTS, FooterCache
from .job_record import JobRecord
from .split_plan import Plan

_END_BYTES = 2**16  # the footer of most parts
# How the temporary names in each folder begin that only the holder of a lease writes to.
_UNFINISHED: dict[str, tuple[str, ...]] = {
    "": (".part-",),
    DEAD_LETTERS: (".part-",),
    ATTEMPTS: (".part-", ".loading."),
    LOG: (".",),
    PLAN: (".",),
    STATE: (".job.json.",),
}

T = TypeVar("T")
R = TypeVar("R")


class Ledger:
    """An output folder as the driver sees it. Raises ConfigError if it can't be opened."""

    def __init__(self, store: Store) -> None:
        self.store, self.path = store, store.path
        self.filesystem, self.root = store.filesystem, store.root

    def parts(self) -> set[str]:
        """List the parts that exist."""
        return {n for n in self.files() if n.startswith("part-") and n.endswith(".parquet")}

    def dead_letter_files(self) -> set[str]:
        """List the files of dead letters, which have the names of their parts."""
        return set(self.files(DEAD_LETTERS))

    def totals(self, splits: Sequence[Split], fingerprint: str | None = None) -> Counter[str]:
        """Add up the footers of these splits, under the names of `PartFooter`.

        A key that no column holds counts as left_out_KEY.

        Raises:
            ConfigError: a part is damaged, or is not of the job with this fingerprint: a worker of
                a job that was changed before it had a part may write its split late.
        """
        totals: Counter[str] = Counter()
        for split, footer in zip(splits, self.footers(splits), strict=True):
            if fingerprint not in (None, footer.fingerprint):
                raise ConfigError(
                    f"{self.path}/{split.part} was written by another job ({footer.job}, "
                    f"{footer.fingerprint}); delete it and run again to compute its rows"
                )
            totals.update({name: getattr(footer, name) for name in ("rows", "dead", *ROW_COUNTS)})
            add_counts(totals, {LEFT_OUT + name: rows for name, rows in footer.left_out.items()})
        return totals

    def footers(self, splits: Iterable[Split]) -> list[PartFooter]:
        """Read the footer of the part of each split. Raises ConfigError that names a bad part."""
        parts = [split.part for split in splits]
        if len(parts) < LEAST_PARTS:
            return self.map_parallel(self._read_footer, parts)
        stamps = self._list_stamps()
        cache = FooterCache(self.store)
        known = cache.read(stamps)
        new = [part for part in parts if part not in known]
        known |= zip(new, self.map_parallel(self._read_footer, new), strict=True)
        if len(new) >= LEAST_PARTS:
            # A part that was written meanwhile has another stamp by now, and is read again.
            cache.write(stamps, [(part, known[part]) for part in parts if part in stamps])
        return [known[part] for part in parts]

    def _list_stamps(self) -> dict[str, FileStamp]:
        try:
            return retry_on_driver(self.store.list_stamps, self.path)
        except FileNotFoundError:
            return {}
        except RunError:
            raise
        except Exception as error:
            raise self._explain_unlisted(error) from error

    def map_parallel(self, read: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Call `read` for every item, many at a time."""
        return list(map_parallel(read, items))

    def snapshot(self) -> tuple[bytes | None, ...]:
        """Return what a run finds when it starts, to be compared later."""
        return self.read(JOB), self._read_plan()

    def read_plan(self) -> Plan | None:
        data = self._read_plan()
        if data is None:
            return None
        try:
            return Plan.from_bytes(data)
        except Exception as error:  # it may hold anything
            raise self._explain_damaged(PLAN, error) from None

    def write_plan(self, plan: Plan) -> None:
        data = plan.to_bytes()
        self._try_to_write(lambda: StateTable(self.store, PLAN).write(data))

    def _read_plan(self) -> bytes | None:
        return self._try_to_read(StateTable(self.store, PLAN).read)

    def read_job(self) -> JobRecord | None:
        data = self.read(JOB)
        if data is None:
            return None
        try:
            return JobRecord.from_json(data)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise self._explain_damaged(JOB, error) from None

    def write_job(self, record: JobRecord) -> None:
        self.write(JOB, record.to_json())

    def files(self, folder: str = "") -> list[str]:
        """List the names in the output, or in a folder inside it."""
        try:
            return retry_on_driver(lambda: self.store.list_names(folder), self.path)
        except FileNotFoundError:
            return []
        except RunError:
            raise
        except Exception as error:
            raise self._explain_unlisted(error) from error

    def _explain_unlisted(self, error: Exception) -> ConfigError:
        return ConfigError(f"can't list the output {self.path}: {describe_error(error)}")

    def open(self, name: str) -> IO[bytes]:
        return self.store.open(name)

    def _explain_damaged(self, name: str, error: Exception) -> ConfigError:
        return ConfigError(
            f"{self.path}/{name} is damaged ({describe_error(error)}): restore it, or name "
            "another output"
        )

    def _read_footer(self, part: str) -> PartFooter:
        def read() -> PartFooter:
            footer = read_footer_end(self.store.read_end(part, _END_BYTES))
            if footer is not None:
                return footer
            with self.store.open(part) as file:
                return read_footer(file)

        try:
            return retry_on_driver(read, f"{self.path}/{part}")
        except RunError:
            raise
        except Exception as error:
            reason = describe_error(error)
            if is_of_store(error):
                raise ConfigError(f"can't read {self.path}/{part}: {reason}") from error
            raise ConfigError(
                f"{self.path}/{part} is damaged, or pipemill did not write it "
                f"({reason}); delete it and run again to compute its rows"
            ) from error

    def read(self, name: str) -> bytes | None:
        """Read a file of the output; return None if it does not exist."""
        return self._try_to_read(lambda: self.store.read(name))

    def _try_to_read(self, read: Callable[[], bytes]) -> bytes | None:
        try:
            return retry_on_driver(read, self.path)
        except FileNotFoundError:
            return None
        except RunError:
            raise
        except NotADirectoryError as error:
            raise ConfigError(
                f"can't read the output {self.path}: it is a file; name the folder that the run "
                "wrote to (output.path)"
            ) from error
        except Exception as error:  # filesystems raise various exceptions
            raise ConfigError(
                f"can't read the output {self.path}: "
                f"{explain_storage_error(error, self.path, self.store.options)}"
            ) from error

    def is_stored_input(self, path: object) -> bool:
        """Return whether an input path is that of rows stored in the output."""
        place = f"{self.path.rstrip('/')}/{STORED_INPUT}/"
        return isinstance(path, str) and path.startswith(place)

    def remove(self, name: str) -> None:
        self.store.remove(name)

    def remove_results(self, parts: Collection[str]) -> None:
        """Remove parts, as far as they exist, and the files of their dead letters."""
        if not parts:
            return
        names = set(parts)
        self.map_parallel(self.remove, self.parts() & names)
        letters = self.dead_letter_files() & names
        self.map_parallel(self.remove, [f"{DEAD_LETTERS}/{name}" for name in letters])

    def remove_unfinished(self) -> None:
        """Remove what processes that were killed while they wrote left under temporary names."""
        if not isinstance(self.filesystem, LocalFileSystem):  # others write without such names
            return
        for folder, beginnings in _UNFINISHED.items():
            # The plan of an older version is a file, in which nothing is found.
            for path in Path(self.root, folder).glob(".*.tmp"):
                if path.name.startswith(beginnings):
                    with suppress(OSError):  # they are in no one's way
                        path.unlink()

    def write(self, name: str, data: bytes) -> None:
        self._try_to_write(lambda: self.store.write(name, data))

    def _try_to_write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            raise explain_no_write(self.path, error) from error


def _describe(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"a {type(value).__name__}"


def open_output(
    output: str | os.PathLike[str], options: Mapping[str, Any] | None
) -> tuple[Ledger, JobRecord, Plan]:
    """Return an output with its job and plan.

    Raises:
        ConfigError: The folder is not an output of pipemill.
    """
    if not isinstance(output, str | os.PathLike) or not (path := os.fspath(output)):
        raise ConfigError(
            f"an output is named by its folder or URL, a text or a path, not by {_describe(output)}"
        )
    given = check_options("storage_options", options)
    ledger = Ledger(Store(make_absolute(path), given))
    record, plan = ledger.read_job(), ledger.read_plan()
    if record is None or plan is None:
        raise ConfigError(
            f"{output} is not an output of pipemill: it lacks {JOB} and {PLAN}. "
            "Name the folder that a run wrote to"
        )
    return ledger, record, plan
