"""Let a worker's process end itself, so that another one takes its place."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

# Exit statuses: the device works no longer in this process; a stage made no progress; SIGTERM.
BROKEN, HUNG, TERMINATED = 70, 124, 143

# Seconds for the last messages: a store may not answer.
_PATIENCE_S = 10.0

# Whether another process takes the place of this one: never of the user's own.
_replaceable = False


@dataclass(frozen=True)
class Farewell:
    """What is done for the work at hand before the process ends.

    Attributes:
        explain: takes the reason for which the process ends itself.
        withdraw: called if the process is told to end, for which the work is not to blame.
    """

    explain: Callable[[str], None]
    withdraw: Callable[[], None]


_farewells: list[Farewell] = []


def set_replaceable(replaceable: bool) -> None:
    """Say whether this process may end itself.

    If so, SIGTERM withdraws the work at hand and ends it: a machine that is taken away says so by
    this signal. Ray's own handler would leave the attempts of splits behind, as if they had killed.
    """
    global _replaceable
    _replaceable = replaceable
    if replaceable and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)


def is_replaceable() -> bool:
    return _replaceable


@contextmanager
def before_end(farewell: Farewell) -> Iterator[None]:
    """Do something before this process ends, if it ends itself during the block."""
    _farewells.append(farewell)
    try:
        yield
    finally:
        _farewells.remove(farewell)


def end_this_process(reason: str, status: int) -> None:
    """End this process, and say why; return if it is not replaceable."""
    if _replaceable:
        _print(f"pipemill: the process ends itself: {reason}")
        _run_for_a_while([partial(one.explain, reason) for one in list(_farewells)])
        os._exit(status)


def _leave(*_: object) -> None:
    if _farewells:
        _print("pipemill: SIGTERM: the process drops the split at hand, and ends")
    _run_for_a_while([one.withdraw for one in list(_farewells)])
    os._exit(TERMINATED)


def _print(line: str) -> None:
    with suppress(Exception):
        print(line, file=sys.stderr, flush=True)


def _run_for_a_while(calls: list[Callable[[], None]]) -> None:
    """Run calls, each in a thread: they may hang, or wait for a lock that the main thread holds."""
    threads = [threading.Thread(target=_run_quietly, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)


def _run_quietly(call: Callable[[], None]) -> None:
    with suppress(Exception):
        call()
