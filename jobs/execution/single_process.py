"""Small inputs on one machine: one worker process, without Ray, as long as that is sooner."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from typing import IO, Any

from pipemill.actors.faults.attempts import DEATHS_LOADING
from pipemill.actors.faults.isolated_process import describe_exit
from pipemill.actors.workers import Sink, Source
from pipemill.pipelines.loading.task_loader import LoadTask

from ..config.job import ActorsSection
from ..output.split_plan import RowEstimate, Split
from .gpus import find_gpus
from .ray_cluster import joins_ray

# What may be small. Whether it is, the first rows tell.
_MOST_ROWS = 1000
_MOST_BYTES = 64 * 2**20
_MOST_BYTES_OF_UNCOUNTED_ROWS = 2**20
# What Ray costs before its actors begin to load: its start, theirs, and the end of both.
_RAY_S = 8.0
# No pace is judged sooner.
_WATCHED_S = 5.0

Line = dict[str, Any]


def is_small(actors: ActorsSection, splits: list[Split]) -> bool:
    """Whether the splits may be done sooner by one process than by Ray, which would be started."""
    if actors.placement != "auto" or actors.min > 1:
        return False
    if actors.gpus_each and actors.gpus_each > len(find_gpus()):
        return False  # what is wrong Ray's cluster shows
    estimate, size = RowEstimate(splits), sum(file.size for file in _files(splits))
    if estimate.known > _MOST_ROWS or size > _MOST_BYTES:
        return False
    if estimate.unknown_bytes > _MOST_BYTES_OF_UNCOUNTED_ROWS:
        return False
    return not joins_ray(actors.cluster)


def _files(splits: list[Split]) -> set[Any]:
    return {file for split in splits for file in split.files()}


def work_without_ray(
    splits: list[Split], load: LoadTask, source: Source, sink: Sink, actors: ActorsSection
) -> Generator[Line, None, list[Split]]:
    """Yield a line about each split; return those that several actors of Ray would do sooner."""
    estimate, pace = RowEstimate(splits), _Pace()
    with _Worker(load, source, sink, actors) as worker:
        for number, split in enumerate(splits):
            lines = worker.do(split)
            yield from lines
            done = sum(line["rows"] or 0 for line in lines)
            estimate.see(split, done)
            pace.count(done, worker.started)
            left = splits[number + 1 :]
            remaining = pace.seconds_for(estimate.total() - pace.rows)
            if remaining and _ray_is_sooner(remaining, worker.load_s, len(left), actors):
                return left
    return []


class _Pace:
    """How long rows take, the first split left out where there are others: it measures, too."""

    def __init__(self) -> None:
        self.rows = self._first_rows = 0
        self._since = self._now = 0.0
        self._first: float | None = None

    def count(self, rows: int, since: float) -> None:
        """since: when the first split was begun."""
        self.rows += rows
        self._since, self._now = since, time.monotonic()
        if self._first is None:
            self._first, self._first_rows = self._now, rows

    def seconds_for(self, rows: int) -> float | None:
        """Return how long so many rows will take; None before that can be told."""
        if self._first is None or self._now - self._since < _WATCHED_S:
            return None
        seconds, done = self._now - self._first, self.rows - self._first_rows
        if not done:
            seconds, done = self._now - self._since, self.rows
        return seconds * max(rows, 0) / done if done else None


def _ray_is_sooner(remaining: float, load_s: float, splits: int, actors: ActorsSection) -> bool:
    """remaining: seconds that this process would still need."""
    fit = math.floor((os.cpu_count() or 1) / actors.num_cpus)
    most = fit if actors.max == "auto" else min(fit, actors.max)
    pool = max(min(most, splits), 1)
    return _RAY_S + load_s + remaining / pool < remaining


class _Worker:
    """The process; another takes its place when it dies, and tries its split again.

    Who died over what is written down in the output: a split that killed two of them is then
    searched for the rows that kill, as with Ray.
    """

    def __init__(self, load: LoadTask, source: Source, sink: Sink, actors: ActorsSection) -> None:
        self._told = (load, source, sink)
        self._threads = str(max(math.floor(actors.num_cpus), 1))
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._error: str | None = None
        self.started = self.load_s = 0.0

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def do(self, split: Split) -> list[Line]:
        """Return the line about the split."""
        while True:
            if self._process is None and self._error is None:
                self._error = self._start()
            if self._error is not None:
                return [_failed(split, self._error)]
            try:
                return self._ask(json.loads(split.to_json()))
            except (OSError, EOFError, pickle.UnpicklingError):
                self._stop()

    def _start(self) -> str | None:
        """Start a process that has loaded the model, or return why none could."""
        started = time.monotonic()
        for _ in range(DEATHS_LOADING):
            self._launch()
            try:
                self._ask(self._told)
                self.load_s = time.monotonic() - started
                self.started = self.started or time.monotonic()
                return None
            except (OSError, EOFError, pickle.UnpicklingError):
                status, last = self._stop(), self._last_line()
        return (
            f"loading failed: the process died {DEATHS_LOADING} times in a row while it loaded the "
            f"model (out of memory?); the last time {describe_exit(status)}{last}"
        )

    def _launch(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipemill.actors.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,  # as what Ray's workers say is in its logs
            env={
                "OMP_NUM_THREADS": self._threads,  # as Ray does
                **os.environ,
                "PYTHONPATH": os.pathsep.join(folder or os.getcwd() for folder in sys.path),
            },
            start_new_session=True,  # an interrupt is the driver's
        )
        threading.Thread(target=_bury, args=(self._process,), daemon=True).start()

    def _ask(self, message: Any) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(message, self._process.stdin, protocol=5)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def _stop(self) -> int:
        """End the process with all that it started; return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        return status

    def _last_line(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def _bury(process: subprocess.Popen[bytes]) -> None:
    """Whatever the process has started would keep its pipe open, and the reader waiting."""
    process.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _failed(split: Split, error: str) -> Line:
    return {
        "split": split.to_json(), "rows": None, "dead": None, "work": None,
        "first_failures": None, "error": error, "fatal": True,
    }  # fmt: skip
