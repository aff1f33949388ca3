"""What is done: the names of the parts that exist. A part exists: its split is done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pipemill.actors.batch import LEFT_OUT
from pipemill.actors.output.layout import DEAD_LETTERS, JOB, PLAN
from pipemill.actors.output.part_file import read_footer
from pipemill.actors.split import Split
from pipemill.actors.storage.backoff import retry_on_driver
from pipemill.actors.storage.filesystem import open_filesystem, write_atomic

from pipemill.errors import ConfigError, RunError

from .split_plan import Plan

_THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


class Ledger:
    """An output folder as the driver sees it."""

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self.path = path
        self.filesystem, self.root = open_filesystem(path, options)

    def parts(self) -> set[str]:
        """Names of the parts that exist."""
        return {n for n in self.files() if n.startswith("part-") and n.endswith(".parquet")}

    def dead_letter_files(self) -> set[str]:
        """Names of the files of dead letters: those of the parts that they belong to."""
        return set(self.files(DEAD_LETTERS))

    def tally(self, splits: Iterable[Split]) -> Counter[str]:
        """What these splits' footers say together.

        rows: those that went into the parts; dead: how many of them are dead letters.
        truncated_rows, lost_tokens: rows whose text was cut, and the tokens cut.
        left_out_NAME: rows with a value of that key which no column holds.
        nan_rows, null_answers: rows done whose numbers are NaN or infinite, or who have no answer.
        """
        footers = self.footers(splits)
        tally = Counter({name: sum(f[name] for f in footers) for name in ("rows", "dead")})
        # Older footers do not have them.
        for name in ("truncated_rows", "lost_tokens", "nan_rows", "null_answers"):
            tally[name] = sum(f.get(name, 0) for f in footers)
        for footer in footers:
            for name, rows in footer.get("left_out", {}).items():
                tally[LEFT_OUT + name] += rows
        return tally

    def footers(self, splits: Iterable[Split]) -> list[dict[str, Any]]:
        """What the footer of each split's part says. Raises ConfigError that names a bad part."""
        return self.each(self._footer, [split.part for split in splits])

    def each(self, read: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """`read` of every item, many at a time: what counts is the way to the store and back."""
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(read, items))

    def state(self) -> tuple[bytes | None, ...]:
        """What a run finds when it begins, to be compared."""
        return self.read(JOB), self.read(PLAN)

    def read_plan(self) -> Plan | None:
        data = self.read(PLAN)
        if data is None:
            return None
        try:
            return Plan.from_bytes(data)
        except Exception as error:  # whatever it holds instead
            raise self._damaged(PLAN, error) from None

    def write_plan(self, plan: Plan) -> None:
        self.write(PLAN, plan.to_bytes())

    def read_job(self) -> dict[str, Any] | None:
        data = self.read(JOB)
        if data is None:
            return None
        try:
            record = json.loads(data)
            _ = record["job"], record["decides"]
        except (ValueError, TypeError, LookupError) as error:
            raise self._damaged(JOB, error) from None
        return record

    def write_job(self, record: Mapping[str, Any]) -> None:
        self.write(JOB, json.dumps(record, indent=2, default=str).encode())

    def files(self, inner: str = "") -> list[str]:
        """Names of what lies in the folder itself, or in one inside it."""
        folder = f"{self.root}/{inner}".rstrip("/")
        try:
            names = retry_on_driver(lambda: self.filesystem.ls(folder, detail=False), self.path)
        except FileNotFoundError:
            return []
        except RunError:
            raise
        except Exception as error:
            raise ConfigError(
                f"can't list the output {self.path}: {type(error).__name__}: {error}"
            ) from error
        return [name.rsplit("/", 1)[-1] for name in names if name.rstrip("/") != folder]

    def _damaged(self, name: str, error: Exception) -> ConfigError:
        return ConfigError(
            f"{self.path}/{name} is damaged ({type(error).__name__}: {error}): restore it, or name "
            "another output"
        )

    def _footer(self, part: str) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            with self.filesystem.open(f"{self.root}/{part}", "rb") as file:
                return read_footer(file)

        try:
            return retry_on_driver(read, f"{self.path}/{part}")
        except RunError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self.path}/{part} is damaged, or not pipemill's ({type(error).__name__}: "
                f"{error}); delete it and run again to have its rows once more"
            ) from error

    def read(self, name: str) -> bytes | None:
        """A file by its name in the folder; None if there is none."""
        try:
            return retry_on_driver(
                lambda: self.filesystem.cat_file(f"{self.root}/{name}"), self.path
            )
        except FileNotFoundError:
            return None
        except RunError:
            raise
        except Exception as error:  # every filesystem has exceptions of its own
            raise ConfigError(
                f"can't read the output {self.path}: {type(error).__name__}: {error}"
            ) from error

    def remove(self, name: str) -> None:
        self.filesystem.rm_file(f"{self.root}/{name}")

    def write(self, name: str, data: bytes) -> None:
        try:
            write_atomic(self.filesystem, f"{self.root}/{name}", data)
        except Exception as error:
            raise ConfigError(
                f"can't write to the output {self.path}: {type(error).__name__}: {error}"
            ) from error
