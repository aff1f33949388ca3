"""What the logs of all runs of an output show together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

from pipemill.actors.storage.store import Store

from .run_log import RunState, find_slowest, log_numbers, read_log

_POINTS = 90  # of the throughput


@dataclass(frozen=True, kw_only=True)
class RunHistory:
    """The runs of an output, one after another.

    Attributes:
        runs: the last line of each run that did a split.
        pace: (seconds of running so far, rows per second until then), the waits included.
        starts: when, in seconds of running, each run began.
    """

    runs: list[RunState]
    pace: list[tuple[float, float]]
    starts: list[float]

    def whole(self) -> RunState | None:
        """Return all runs added up; None without any."""
        if not self.runs:
            return None
        work: Counter[str] = Counter()
        for run in self.runs:
            work.update(run.work)
        return replace(
            self.runs[-1],
            seconds=self.seconds,
            rows=sum(run.rows for run in self.runs),
            dead=sum(run.dead for run in self.runs),
            splits_done=sum(run.splits_done for run in self.runs),
            work=work,
            slowest=tuple(find_slowest(split for run in self.runs for split in run.slowest)),
        )

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.runs)


def read_history(store: Store) -> RunHistory:
    """Read the logs. Those of older versions are not there."""
    logs = [read_log(store, number) for number in log_numbers(store)]
    logs = [log for log in logs if log and log[-1].splits_done]
    pace: list[tuple[float, float]] = []
    starts, offset = [], 0.0
    step = sum(log[-1].seconds for log in logs) / _POINTS
    for log in logs:
        starts.append(offset)
        pace += [(offset + time, rate) for time, rate in _measure_pace(log, step)]
        offset += log[-1].seconds
    return RunHistory(runs=[log[-1] for log in logs], pace=pace, starts=starts)


def _measure_pace(log: list[RunState], step: float) -> list[tuple[float, float]]:
    """Return rows per second between lines that are at least `step` seconds apart."""
    kept = [log[0]]
    for state in log[1:-1]:
        if state.seconds - kept[-1].seconds >= step:
            kept.append(state)
    kept.append(log[-1])
    return [
        (new.seconds, (new.rows - old.rows) / max(new.seconds - old.seconds, 1e-3))
        for old, new in pairwise(kept)
        if new.seconds > old.seconds
    ]
