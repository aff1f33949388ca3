"""Small inputs on one machine: one worker process without Ray, as long as that is faster."""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from typing import IO, TYPE_CHECKING, Any

from pipemill.actors import worker_process
from pipemill.actors.child_process import (
    PROCESS_GONE,
    describe_exit,
    end_process,
    receive,
    send,
    start_python,
)
from pipemill.actors.faults.attempts import DEATHS_LOADING
from pipemill.actors.split import Split
from pipemill.actors.split_result import SplitResult
from pipemill.actors.split_table import SplitTable
from pipemill.actors.storage.input_file import InputFile

from ..output.split_plan import RowEstimate
from .gpus import find_gpus
from .ray_address import joins_ray
from .split_work import SplitWork

if TYPE_CHECKING:
    from ..config.job import ActorsSection

# Limits of a small input. How long its rows take, the first ones show.
_MOST_ROWS = 1000
_MOST_STATIC_ROWS = 500_000
_MOST_BYTES = 64 * 2**20
_MOST_BYTES_OF_UNCOUNTED_ROWS = 2**20
# What Ray costs before its actors start to load: its start, theirs, and the end of both.
RAY_S = 8.0
# What importing torch and transformers takes on such a machine.
IMPORTS_S = 3.0
# The pace is not judged before this time.
WATCHED_S = 5.0


def is_small(actors: ActorsSection, splits: Sequence[Split], is_static: bool = False) -> bool:
    """Return whether one process may be faster than a Ray that must be started first.

    is_static: whether the model is static embeddings, which take microseconds a row.
    """
    if actors.placement != "auto" or actors.min > 1:
        return False
    if actors.gpus_each and actors.gpus_each > len(find_gpus()):
        return False  # Ray says what is wrong
    estimate = RowEstimate(splits)
    if estimate.known > (_MOST_STATIC_ROWS if is_static else _MOST_ROWS):
        return False
    if estimate.unknown_bytes > _MOST_BYTES_OF_UNCOUNTED_ROWS:
        return False
    # Last: there may be millions of files.
    size = sum(file.size for file in _list_files(splits))
    return size <= _MOST_BYTES and not joins_ray(actors.cluster)


def _list_files(splits: Sequence[Split]) -> set[InputFile]:
    return {file for split in splits for file in split.files()}


def work_without_ray(
    work: SplitWork, splits: SplitTable
) -> Generator[SplitResult, None, SplitTable]:
    """Yield the result of each split; return the splits that several Ray actors would do faster."""
    estimate, pace = RowEstimate(splits), _Pace()
    with _WorkerProcess(work) as worker:
        for number, split in enumerate(splits):
            result = worker.process(split)
            yield result
            estimate.see(split, result.rows or 0)
            pace.count(result.rows or 0, worker.started)
            left = splits[number + 1 :]
            remaining = pace.seconds_for(estimate.total() - pace.rows)
            if remaining and ray_is_sooner(remaining, worker.load_s, len(left), work.actors):
                return left
    return splits[:0]


class _Pace:
    """How long rows take, without the first split where there are others: it also measures."""

    def __init__(self) -> None:
        self.rows = self._first_rows = 0
        self._since = self._now = 0.0
        self._first: float | None = None

    def count(self, rows: int, since: float) -> None:
        """Count rows that are done. since: when the first split was started."""
        self.rows += rows
        self._since, self._now = since, time.monotonic()
        if self._first is None:
            self._first, self._first_rows = self._now, rows

    def seconds_for(self, rows: int) -> float | None:
        """Return how long `rows` rows will take; None while that is unknown."""
        if self._first is None or self._now - self._since < WATCHED_S:
            return None
        seconds, done = self._now - self._first, self.rows - self._first_rows
        if not done:
            seconds, done = self._now - self._since, self.rows
        return seconds * max(rows, 0) / done if done else None


def ray_is_sooner(remaining: float, load_s: float, splits: int, actors: ActorsSection) -> bool:
    """Tell whether Ray would end first. remaining: seconds that this process still needs."""
    fit = math.floor((os.cpu_count() or 1) / actors.num_cpus)
    most = fit if actors.max == "auto" else min(fit, actors.max)
    pool = max(min(most, splits), 1)
    return RAY_S + load_s + remaining / pool < remaining


def start_process(
    module: str, actors: ActorsSection, stderr: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Start a Python with as many threads as an actor of Ray has."""
    # Ray sets this variable for its workers, too.
    threads = os.environ.get("OMP_NUM_THREADS", str(max(math.floor(actors.num_cpus), 1)))
    return start_python(module, environment={"OMP_NUM_THREADS": threads}, stderr=stderr)


class _WorkerProcess:
    """A worker in a process; another one takes its place when it dies, and retries its split.

    Each attempt is recorded in the output: a split that killed two processes is then searched for
    the rows that kill, as with Ray.
    """

    def __init__(self, work: SplitWork) -> None:
        self._worker = (work.load, work.source, work.sink)
        self._actors = work.actors
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._error: str | None = None
        self.started = self.load_s = 0.0

    def __enter__(self) -> _WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def process(self, split: Split) -> SplitResult:
        while True:
            if self._process is None and self._error is None:
                self._error = self._start()
            if self._error is not None:
                return SplitResult(split=split, error=self._error, fatal=True)
            try:
                return self._request(split)
            except PROCESS_GONE:
                self._stop()

    def _start(self) -> str | None:
        """Start a process and load the model; return the reason if that failed."""
        started = time.monotonic()
        for _ in range(DEATHS_LOADING):
            self._launch()
            try:
                self._request(self._worker)
                self.load_s = time.monotonic() - started
                self.started = self.started or time.monotonic()
                return None
            except PROCESS_GONE:
                status, last = self._stop(), self._find_last_line()
        return (
            f"loading failed: the process died {DEATHS_LOADING} times in a row while it loaded the "
            f"model (out of memory?); the last time {describe_exit(status)}{last}"
        )

    def _launch(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        # Kept off the terminal, like the logs of Ray workers.
        self._process = start_process(worker_process.__name__, self._actors, self._log)

    def _request(self, message: Any) -> Any:
        assert self._process is not None
        send(self._process.stdin, message)
        return receive(self._process.stdout)

    def _stop(self) -> int:
        """End the process and all that it started; return its exit status."""
        process, self._process = self._process, None
        return 0 if process is None else end_process(process)

    def _find_last_line(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""
