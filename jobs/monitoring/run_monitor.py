"""Say how far a run is while it goes on: in its log, in Ray's metrics, in lines of JSON."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from pipemill.actors.batch import add_counts
from pipemill.actors.monitoring.ray_metrics import record_progress
from pipemill.actors.split_result import SplitResult

from ..execution.pool_size import describe_lost_room
from ..execution.progress import log
from ..execution.split_work import SplitWork
from ..output.lease import Lease
from ..output.lease_owner import now
from .messages import write_line, writes_json
from .run_log import RunLog, RunState, find_slowest

_BEAT_S = 1.0
_PATIENCE_S = 15.0
# Seconds without a split after which the cluster is asked whether it has nodes for actors.
_SILENCE_S = 300.0
# Seconds between lines on stderr, where they are JSON.
_LINES_S = 10.0
# The pace is that of the last minute, and of as many splits at least.
_PACE_S, _PACE_SPLITS = 60.0, 20


class RunMonitor:
    """Watches a run from the inside; use it as a context manager.

    Args:
        before: rows, and dead ones among them, that the output had before.
        splits: how many splits there are to do.
        total: rows that the run is expected to do.
    """

    def __init__(
        self, work: SplitWork, lease: Lease, before: Mapping[str, int], splits: int, total: int
    ) -> None:
        self._name, self._log = work.sink.name, RunLog(lease.store, lease.number)
        self._started = self._heard = time.monotonic()
        self._actors = work.actors
        self._work: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._slowest: list[Mapping[str, Any]] = []
        self._total = total
        self._state = RunState(
            event="start",
            time=now(),
            seconds=0.0,
            verb=lease.verb,
            task=work.load.task,
            placement=work.placement,
            rows_before=before.get("rows", 0),
            dead_before=before.get("dead", 0),
            rows_total=before.get("rows", 0) + total,
            splits=splits,
        )
        self._line_due = 0.0
        self._pace: deque[tuple[float, int]] = deque()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="pipemill-monitor")

    def __enter__(self) -> RunMonitor:
        self._add("start")
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._ended.set()
        self._thread.join(_PATIENCE_S)
        self._add("end", None if error is None else _describe(error))
        self._record()  # what was done since the last beat
        if not self._thread.is_alive():  # it would still wait for the store
            with suppress(Exception):  # the run has ended, however it did
                self._log.write(at_once=True)

    def count(self, result: SplitResult, counts: Mapping[str, float], total: int) -> None:
        """Count a split.

        Args:
            counts: its rows, its dead rows, and its work.
            total: rows that the run is now expected to do.
        """
        with self._lock:
            self._total, self._heard = total, time.monotonic()
            if result.error is not None:
                self._state = replace(self._state, splits_failed=self._state.splits_failed + 1)
                return
            work = {n: amount for n, amount in counts.items() if n not in ("rows", "dead")}
            add_counts(self._work, work)
            self._reasons.update(result.reasons)
            self._slowest = find_slowest([*self._slowest, _describe_split(result, counts)])
            self._state = replace(
                self._state,
                rows=self._state.rows + int(counts["rows"]),
                dead=self._state.dead + int(counts["dead"]),
                splits_done=self._state.splits_done + 1,
            )
            self._pace.append((time.monotonic(), self._state.rows))
            while len(self._pace) > _PACE_SPLITS and self._pace[-1][0] - self._pace[0][0] > _PACE_S:
                self._pace.popleft()

    def state(self, event: Literal["start", "progress", "end"], text: str | None) -> RunState:
        """Return how far the run is now."""
        with self._lock:
            seconds, state = time.monotonic() - self._started, self._state
            pace = self._find_pace()
            left = max(self._total - state.rows, 0)
            return replace(
                state,
                event=event,
                time=now(),
                seconds=round(seconds, 3),
                rows_total=state.rows_before + max(self._total, state.rows),
                rows_per_second=None if pace is None else round(pace, 3),
                eta_seconds=round(left / pace, 1) if pace else None,
                work=dict(self._work),
                reasons=dict(self._reasons),
                slowest=tuple(self._slowest),
                text=text,
            )

    def _find_pace(self) -> float | None:
        """Return rows per second; None before the second split: the first one waited for a model.

        A run of one split has no pace.
        """
        if len(self._pace) < 2:
            return None
        (first, rows_then), (_, rows) = self._pace[0], self._pace[-1]
        return (rows - rows_then) / max(self._pace[-1][0] - first, 1e-3) or None

    def _watch(self) -> None:
        while not self._ended.wait(_BEAT_S):
            if self._log.is_due(time.monotonic() - self._started):
                self._add("progress")
            self._record()
            with suppress(Exception):  # the next one may do better
                self._log.write()
            with suppress(Exception):  # a head that does not answer
                self._warn_of_silence()

    def _warn_of_silence(self) -> None:
        """Say why no split is done any more, if no node is left: Ray says nothing, and waits."""
        if time.monotonic() < self._heard + _SILENCE_S:
            return
        self._heard = time.monotonic()
        if why := describe_lost_room(self._actors):
            log(why)

    def _add(self, event: Literal["start", "progress", "end"], text: str | None = None) -> None:
        state = self.state(event, text)
        self._log.add(state)
        if writes_json() and (event != "progress" or state.seconds >= self._line_due):
            write_line(state.to_json())
            self._line_due = state.seconds + _LINES_S

    def _record(self) -> None:
        """Record what Ray forgets when it has exported it."""
        state = self.state("progress", None)
        left = state.splits - state.splits_done - state.splits_failed
        splits = {"done": state.splits_done, "left": left, "failed": state.splits_failed}
        record_progress(self._name, splits, state.eta_seconds)


def _describe_split(result: SplitResult, counts: Mapping[str, float]) -> dict[str, Any]:
    seconds = RunState.split_seconds(counts)
    return {
        "split": result.split.number,
        "path": result.split.path,
        "rows": int(counts["rows"]),
        "seconds": round(seconds, 3),
    }


def _describe(error: BaseException) -> str:
    interrupted = isinstance(error, KeyboardInterrupt)
    return str(error) or ("interrupted" if interrupted else type(error).__name__)
