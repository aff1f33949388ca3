"""Find the rows of a split that kill their process, and compute the others."""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from ..batch import Batch, Failure
from ..split import Split
from .attempts import SplitGivenUp
from .blame import JudgedError
from .isolated_process import IsolatedProcess, ProcessDied
from .process_end import BROKEN

# A process that dies while it starts, loads or reads is tried this often: no row is at fault.
_TRIES = 3
# After this many deaths a split is given up: nothing of it was answered, or very many rows kill.
_DEATHS_WITHOUT_AN_ANSWER = 16
_DEATHS = 200
# Deaths that may have another reason than the row, which is tried once more: the system kills when
# another process took the memory, and a GPU may be faulty.
_DOUBTFUL = (-signal.SIGKILL, BROKEN)


class CrashIsolator:
    """A process for a suspected split, and another one each time it dies.

    A split of n rows is cut into about sqrt(n) pieces; the rows of a piece that dies are tried
    one by one. So a row that kills costs two deaths, and the model is loaded two more times.

    Args:
        start: starts a new process.
    """

    def __init__(self, start: Callable[[], IsolatedProcess]) -> None:
        self._start = start
        self._process: IsolatedProcess | None = None
        self.deaths = self.answers = 0

    def __enter__(self) -> CrashIsolator:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def read(self, split: Split) -> Batch:
        return self._ask(lambda process: process.read(split))

    def run(self, steps: tuple[str, ...] | None, batch: Batch) -> Batch:
        """Run steps on a batch, or all (None); rows that kill become failures, "WorkerDied"."""
        live = batch.ok_rows()
        pieces = np.array_split(live, math.ceil(math.sqrt(len(live)))) if len(live) else []
        queue, done = deque(pieces), []
        killed: dict[int, ProcessDied] = {}
        while queue:
            rows = queue.popleft()
            try:
                done.append((rows, self._ask_about(steps, _take(batch, rows))))
                self.answers += 1
            except ProcessDied as died:
                self._count_death(died)
                if len(rows) > 1:
                    queue.extend(np.array_split(rows, len(rows)))
                elif died.status in _DOUBTFUL and int(rows[0]) not in killed:
                    killed[int(rows[0])] = died
                    queue.append(rows)
                else:
                    killed[int(rows[0])] = died
        answered = {int(rows[0]) for rows, _ in done if len(rows) == 1}
        for row, last in killed.items():
            if row not in answered:
                batch.failures[row] = Failure(last.stage, "WorkerDied", str(last))
        dead = np.array(sorted(batch.failures), dtype=np.int64)
        if len(dead) or not done:  # stages only shape their columns
            done.append((dead, self._ask_about(steps, _take(batch, dead))))
        return _join_batches(batch, done)

    def _ask_about(self, steps: tuple[str, ...] | None, batch: Batch) -> Batch:
        return self._ask(lambda process: process.run(steps, batch))

    def _ask(self, ask: Callable[[IsolatedProcess], Batch]) -> Batch:
        """Ask the process that runs, or a new one. Raises ProcessDied for a stage that has rows."""
        for tries in range(1, _TRIES + 1):
            self._process = self._process or self._start()
            try:
                return ask(self._process)
            except ProcessDied as died:
                self.__exit__()
                if died.stage not in ("start", "load", "read"):
                    raise
                if tries == _TRIES:
                    raise SplitGivenUp(
                        f"its workers died, and in an isolated process stage {died.stage} died "
                        f"{tries} times: {died}"
                    ) from None
        raise AssertionError

    def _count_death(self, died: ProcessDied) -> None:
        self.deaths += 1
        if self.deaths >= _DEATHS_WITHOUT_AN_ANSWER and not self.answers:
            raise UnprocessableSplit(f"{died.stage} kills its process on every row: {died}")
        if self.deaths >= _DEATHS:
            raise SplitGivenUp(f"its rows killed {self.deaths} processes; the last: {died}")


class UnprocessableSplit(JudgedError):
    """No row of a split could be computed; another split would fail, too."""

    blame = "run"


def _take(batch: Batch, rows: np.ndarray) -> Batch:
    place = {int(row): i for i, row in enumerate(rows)}
    failures = {place[row]: why for row, why in batch.failures.items() if row in place}
    return Batch(batch.rows.take(pa.array(rows, pa.int64())), failures, lacking=batch.lacking)


def _join_batches(batch: Batch, pieces: list[tuple[np.ndarray, Batch]]) -> Batch:
    """Return the pieces in the order of the rows, with the failures under their row numbers."""
    order = pa.array(np.argsort(np.concatenate([rows for rows, _ in pieces]), kind="stable"))
    rows = _sort_rows([piece.rows for _, piece in pieces], order)
    joined = Batch(rows, file_rows=batch.file_rows)
    joined.add_stats(**batch.stats)
    for rows, piece in pieces:
        joined.failures.update({int(rows[i]): why for i, why in piece.failures.items()})
        joined.add_stats(**piece.stats)
    results = [piece.results for _, piece in pieces if piece.results is not None]
    joined.results = _sort_rows(results, order) if results else None
    return joined


def _sort_rows(tables: list[pa.Table], order: pa.Array) -> pa.Table:
    # A piece in which all rows failed has columns of the type null.
    return pa.concat_tables(tables, promote_options="default").take(order).combine_chunks()
