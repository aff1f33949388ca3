"""Follow a run from its output alone, from any machine: `pipemill status --watch`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from pipemill.actors.faults.attempt_files import AttemptFiles
from pipemill.actors.output.layout import ATTEMPTS
from pipemill.actors.storage.backoff import retry_on_driver

from ..output.lease import EXPIRY_S, find_latest
from ..output.lease_owner import LeaseOwner
from ..output.ledger import Ledger, open_output
from ..output.text_table import TextTable, format_duration, format_number, make_fact_table
from .messages import are_messages_lost, is_terminal
from .run_log import RunState, read_log

# Seconds between looks: on a terminal, and where each is a new line.
_TERMINAL_S, _LINES_S = 2.0, 10.0
_REASONS = 5


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as its output shows it now.

    Attributes:
        owner: who runs it.
        state: the last line of its log; None before the first.
        about: "about " if the rows are an estimate.
        actors, splits: the processes that are at work, and the splits that they are at.
        loading: the processes that load the model.
    """

    owner: LeaseOwner
    state: RunState | None
    about: str
    actors: int
    splits: int
    loading: int

    def table(self) -> TextTable:
        """Return what a reader wants to see."""
        lines = [("run", str(self.owner)), ("actors", self._describe_actors())]
        if self.state is not None:
            lines += [
                ("rows", self._describe_rows(self.state)),
                ("speed", ", ".join(_describe_pace(self.state)) or "not known yet"),
            ]
            if binds := _describe_limit(self.state):
                lines.append(("binds", f"{binds} of the actors' time"))
            reasons = sorted(self.state.reasons.items(), key=lambda item: -item[1])
            names = ["dead letters", *[""] * _REASONS]
            counts = [f"{count:,} × {reason}" for reason, count in reasons[:_REASONS]]
            if len(reasons) > _REASONS:
                counts.append(f"… and {len(reasons) - _REASONS:,} more kinds")
            lines += zip(names, counts, strict=False)
        return make_fact_table(lines)

    def line(self) -> str:
        """Return the same in a line."""
        if self.state is None:
            return f"the run prepares, {self._describe_actors()}"
        binds = _describe_limit(self.state)
        parts = [
            self._describe_rows(self.state),
            *_describe_pace(self.state),
            self._describe_actors(),
        ]
        return ", ".join([*parts, f"binds: {binds}"] if binds else parts)

    def _describe_rows(self, state: RunState) -> str:
        rows, dead = state.rows_before + state.rows, state.dead_before + state.dead
        if not state.rows_total:  # before a split was read, nobody knows
            return f"{rows:,} rows, {dead:,} dead"
        share = f"({rows / state.rows_total:.0%})"
        return f"{rows:,} of {self.about}{state.rows_total:,} rows {share}, {dead:,} dead"

    def _describe_actors(self) -> str:
        loading = f", {self.loading} loading the model" if self.loading else ""
        return f"{self.actors} at work on {self.splits} split{'s' * (self.splits != 1)}{loading}"


def _describe_pace(state: RunState) -> list[str]:
    if state.rows_per_second is None:
        return []
    left = [] if state.eta_seconds is None else [f"{format_duration(state.eta_seconds)} left"]
    return [f"{format_number(state.rows_per_second)} rows/s", *left]


def _describe_limit(state: RunState) -> str:
    shares = [f"{stage} {share:.0%}" for stage, share in state.shares().items()]
    return ", ".join(share for share in shares if not share.endswith(" 0%"))


class RunWatcher:
    """Looks at an output again and again. Raises ConfigError if it is not one."""

    def __init__(self, output: str) -> None:
        ledger, _, plan = open_output(output, None)
        self._ledger: Ledger = ledger
        self._about = "about " if any(split.rows is None for split in plan.splits) else ""
        self._lease, self._changed = b"", 0.0
        self._places: dict[str, tuple[str, int]] = {}

    def views(self) -> Iterator[RunView]:
        """Yield how far the run is, until no run is at work."""
        while view := retry_on_driver(self._look, self._ledger.path):
            yield view

    def _look(self) -> RunView | None:
        store = self._ledger.store
        number, owner, data = find_latest(store)
        if not number or owner is None or owner.released or not self._is_alive(owner, data):
            return None
        states = read_log(store, number)
        if states and states[-1].event == "end":
            return None
        names = AttemptFiles(store, "").names()
        places = self._find_places(names)
        splits = [name for name in names if name in places and name.startswith("part-")]
        loading = [name for name in names if name in places and name.startswith("loading.")]
        return RunView(
            owner=owner,
            state=states[-1] if states else None,
            about=self._about,
            actors=len({places[name] for name in splits}),
            splits=len(splits),
            loading=len(loading),
        )

    def _is_alive(self, owner: LeaseOwner, data: bytes) -> bool:
        """Return whether the run is: on another machine, whether its lease changes."""
        alive = owner.is_alive()
        if alive is not None:
            return alive
        if data != self._lease:
            self._lease, self._changed = data, time.monotonic()
        return time.monotonic() - self._changed < EXPIRY_S

    def _find_places(self, names: list[str]) -> dict[str, tuple[str, int]]:
        """Return the host and the process of each attempt."""
        new = [name for name in names if name not in self._places]
        read = self._ledger.map_parallel(self._read_place, new)
        found = {name: place for name, place in zip(new, read, strict=True) if place}
        known = {name: self._places[name] for name in names if name in self._places}
        self._places = {**known, **found}
        return self._places

    def _read_place(self, name: str) -> tuple[str, int] | None:
        try:
            record = json.loads(self._ledger.store.read(f"{ATTEMPTS}/{name}"))
        except FileNotFoundError:  # it has ended since it was listed
            return None
        return record["host"], record["pid"]


class _Display(Protocol):
    def show(self, view: RunView) -> None: ...


def watch_run(output: str) -> None:
    """Show how far the run of an output is, until it ends or nobody looks. Raises ConfigError."""
    watcher = RunWatcher(output)
    on_terminal = is_terminal(sys.stderr)
    with _open_live_table() if on_terminal else nullcontext(_Lines()) as display:
        for view in watcher.views():
            display.show(view)
            if are_messages_lost():
                break
            time.sleep(_TERMINAL_S if on_terminal else _LINES_S)


class _Lines:
    def show(self, view: RunView) -> None:
        print(view.line(), file=sys.stderr, flush=True)


def _open_live_table() -> AbstractContextManager[_Display]:
    """Return a table that is updated in place, and goes away in the end."""
    from rich.console import Console
    from rich.live import Live

    class LiveTable(Live):
        def show(self, view: RunView) -> None:
            self.update(view.table(), refresh=True)

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    return LiveTable(console=console, auto_refresh=False, transient=True)
