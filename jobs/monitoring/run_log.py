"""The log of each run in its output: lines of JSON, `_pipemill/log/NUMBER.log`.

Each line says how far the run is, so the last one is enough to watch it, and all of them are its
history. An object store can't append, so the whole file is written again for new lines, the less
often the longer it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipemill.actors.output.layout import LOG
from pipemill.actors.storage.store import Store

# The stages of a split, as readers know them.
_STAGES = {
    "read": "read",
    "expand": "preprocess",
    "forward": "device",
    "regroup": "postprocess",
    "write": "write",
}
# Splits that are named as the slowest ones.
_SLOWEST = 5
# Splits after which shares are more than chance.
_SETTLED = 3
# Seconds between writes: at first, and for each MiB of the file.
_PAUSE_S, _PAUSE_PER_MIB_S = 2.0, 10.0
# Seconds between lines: at least, at most, and as a share of the time so far.
_LEAST_S, _MOST_S, _SHARE = 2.0, 60.0, 0.01


@dataclass(frozen=True, kw_only=True)
class RunState:
    """How far a run is: a line of its log. Rows and splits are those of this run alone.

    Attributes:
        event: "start", "progress" or "end".
        time: when that was, in UTC.
        seconds: since the run started to process splits.
        verb, task, placement: what runs, and where.
        rows, dead: the rows that were processed, and how many of them are dead letters.
        rows_before, dead_before: those that the output had before.
        rows_total: the rows that the output will have, as far as known.
        splits, splits_done, splits_failed: the splits to do, and what became of them.
        rows_per_second: the pace of the last minute, or of the last splits; None if unknown.
        eta_seconds: until the end at that pace; None if unknown.
        work: what the workers counted and measured, as in `Batch.stats`.
        reasons: how many rows failed, by the stage and the class of the error.
        slowest: the splits that took longest, the slowest first: each with its `split`, `path`,
            `rows` and the `seconds` of all its stages.
        text: what ended the run early, in words.
    """

    event: Literal["start", "progress", "end"]
    time: str
    seconds: float
    verb: str
    task: str
    placement: str
    rows: int = 0
    dead: int = 0
    rows_before: int = 0
    dead_before: int = 0
    rows_total: int = 0
    splits: int = 0
    splits_done: int = 0
    splits_failed: int = 0
    rows_per_second: float | None = None
    eta_seconds: float | None = None
    work: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    slowest: tuple[Mapping[str, Any], ...] = ()
    text: str | None = None

    def shares(self) -> dict[str, float]:
        """Return how much of the actors' time each stage takes, the largest share first.

        Stages of different splits overlap. The first one binds the run: with a share near 1 it
        never waits for the others.
        """
        actors = self.work.get("actor_seconds")
        if not actors or self.splits_done < _SETTLED:
            return {}
        shares = {
            name: min(self.work[f"{stage}_seconds"] / actors, 1)
            for stage, name in _STAGES.items()
            if f"{stage}_seconds" in self.work
        }
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    @staticmethod
    def split_seconds(work: Mapping[str, float]) -> float:
        """Return the seconds of all stages of a split. work: what it counted."""
        return sum(work.get(f"{stage}_seconds", 0.0) for stage in _STAGES)

    def to_json(self) -> str:
        """Return one line, without what is empty."""
        fields = asdict(self)
        for name, value in self.work.items():
            fields["work"][name] = round(value, 3)
        return json.dumps({n: value for n, value in fields.items() if value not in (None, {}, ())})

    @classmethod
    def from_json(cls, line: str) -> RunState:
        """Read a line. Newer versions may have more fields."""
        fields: dict[str, Any] = json.loads(line)
        fields["slowest"] = tuple(fields.get("slowest", ()))
        return cls(**{n: value for n, value in fields.items() if n in cls.__dataclass_fields__})


def find_slowest(splits: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the splits that took longest, as in `RunState.slowest`."""
    taken = [split for split in splits if split["seconds"]]
    return sorted(taken, key=lambda split: -split["seconds"])[:_SLOWEST]


class RunLog:
    """The log of one run, as its writer sees it.

    Args:
        store: the output.
        number: of the lease under which the run writes.
    """

    def __init__(self, store: Store, number: int) -> None:
        self._store, self._name = store, f"{LOG}/{number:08d}.log"
        self._lines: list[str] = []
        self._bytes = self._written = 0
        self._line_due = self._write_due = 0.0

    def is_due(self, seconds: float) -> bool:
        """Return whether it is time for another line. seconds: since the start."""
        return seconds >= self._line_due

    def add(self, state: RunState) -> None:
        """Add a line, which `write` writes."""
        self._lines.append(state.to_json())
        self._bytes += len(self._lines[-1])
        pause = min(max(_SHARE * state.seconds, _LEAST_S), _MOST_S)
        self._line_due = state.seconds + pause

    def write(self, at_once: bool = False) -> None:
        """Write the file, if there are new lines and it is time. Raises what the store raises."""
        now = time.monotonic()
        if len(self._lines) == self._written or not (at_once or now >= self._write_due):
            return
        self._write_due = now + max(_PAUSE_S, self._bytes / 2**20 * _PAUSE_PER_MIB_S)
        self._written = len(self._lines)
        self._store.write(self._name, "".join(f"{line}\n" for line in self._lines).encode())


def read_log(store: Store, number: int) -> list[RunState]:
    """Return the lines of a run; an empty list if it has no log."""
    try:
        data = store.read(f"{LOG}/{number:08d}.log")
    except FileNotFoundError:
        return []
    return [RunState.from_json(line) for line in data.decode().splitlines()]


def log_numbers(store: Store) -> list[int]:
    """Return the numbers of the runs that have a log, in their order."""
    try:
        names = store.list_names(LOG)
    except FileNotFoundError:
        return []
    return sorted(int(name[:-4]) for name in names if name[:-4].isdigit() and name[-4:] == ".log")
