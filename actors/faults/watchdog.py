"""End the process of a worker if a stage hangs.

What counts as progress: a call of a stage for some rows, a micro-batch, a row that is preprocessed,
and a call of a layer, so also a token that is generated. Slow work makes progress; a hang makes
none. Loading, reading and writing are no stages. A call that waits for another one's lock waits
before its stage, or by `hold` or `wait_on`.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType

from .process_end import HUNG, end_this_process, is_replaceable

# A stage hangs if it makes no progress for this many times the longest pause so far,
FACTOR = 30
# but not sooner than after these seconds;
LEAST_S = 300.0
# and these, until it has made a few steps: a first one may compile kernels.
FIRST_S = 900.0
_FEW = 8

_LOOK_S = 5.0
# Seconds after which a process is ended in which not even the watchdog runs, as code that holds the
# interpreter's lock hangs.
_GRACE_S = 60.0
_FRAMES = 8


@dataclass
class _Pace:
    """The progress of a stage in this process so far: its steps, and the longest of them."""

    steps: int = 0
    longest_s: float = 0.0

    def limit_s(self) -> float:
        least = LEAST_S if self.steps >= _FEW else FIRST_S
        return max(least, FACTOR * self.longest_s)


@dataclass(eq=False)
class _Call:
    """A call of a stage, in a thread."""

    stage: str
    thread: int = field(default_factory=threading.get_ident)
    since: float = field(default_factory=time.monotonic)
    reported: bool = False


_paces: dict[str, _Pace] = defaultdict(_Pace)
_calls: list[_Call] = []
_local = threading.local()
_starting = threading.Lock()
_watching: threading.Thread | None = None
_armed = False  # whether faulthandler would end this process


@contextmanager
def watch_stage(stage: str) -> Iterator[None]:
    """Expect that the block makes progress."""
    _start_watching()
    _local.call = call = _Call(stage)
    _calls.append(call)
    if is_replaceable():  # before the watchdog looks: the stage may hold the interpreter's lock
        _arm_for(list(_calls))
    try:
        yield
    finally:
        mark_progress()
        _local.call = None
        _calls.remove(call)


def mark_progress(*_: object) -> None:
    """Note that the stage of this thread, if it is in one, made a step."""
    call: _Call | None = getattr(_local, "call", None)
    if call is not None:
        now, pace = time.monotonic(), _paces[call.stage]
        pace.steps += 1
        pace.longest_s = max(pace.longest_s, now - call.since)
        call.since = now


def share_stage() -> Callable[[], None]:
    """Return what makes the steps of the thread that calls it those of this thread's stage."""
    return partial(setattr, _local, "call", getattr(_local, "call", None))


@contextmanager
def hold(lock: threading.Lock | threading.Semaphore) -> Iterator[None]:
    """Hold a lock inside the block. While its holder's stage makes steps, to wait is no hang."""
    seen = -1
    while not lock.acquire(timeout=_find_pause()):
        seen = wait_on(seen)
    try:
        yield
    finally:
        lock.release()


def wait_on(seen: int) -> int:
    """Let this thread wait for others of its stage, if they made a step since it looked last.

    seen: what this returned then; -1 at first.
    """
    call: _Call | None = getattr(_local, "call", None)
    if call is None or seen == (steps := _paces[call.stage].steps):
        return seen
    call.since = time.monotonic()
    return steps


def _find_pause() -> float:
    """Return the seconds between two looks."""
    return min(_LOOK_S, LEAST_S / 4)


def _start_watching() -> None:
    global _watching
    with _starting:
        # A thread does not survive a fork.
        if _watching is None or not _watching.is_alive():
            _watching = threading.Thread(target=_watch, name="watchdog", daemon=True)
            _watching.start()


def _watch() -> None:
    while True:
        pause, before = _find_pause(), time.monotonic()
        time.sleep(pause)
        late = time.monotonic() - before - pause
        with suppress(Exception):  # what is armed would end a process without a watchdog
            _look(late if late > pause else 0)


def _look(stopped_s: float) -> None:
    """Look at all calls. stopped_s: how long the whole process did not run, as after SIGSTOP."""
    calls = list(_calls)
    for call in calls:
        call.since += stopped_s
        limit, paused = _paces[call.stage].limit_s(), time.monotonic() - call.since
        if paused > limit and not call.reported:
            call.reported = True
            _report(call, paused)
    # A process that has been armed may have become one that must not end.
    _arm_for(calls if is_replaceable() else [])


def _report(call: _Call, paused: float) -> None:
    with suppress(Exception):
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
    reason = f"no progress in {paused:.0f} s of {call.stage}; it is at {_describe(call.thread)}"
    end_this_process(reason, HUNG)
    with suppress(Exception):
        print(f"pipemill: {reason}; the run waits for it", file=sys.stderr, flush=True)


def _arm_for(calls: list[_Call]) -> None:
    """Let faulthandler end the process from a thread without Python, unless it is armed again."""
    global _armed
    if not calls:
        if _armed:  # what others have armed is theirs
            faulthandler.cancel_dump_traceback_later()
        _armed = False
        return
    limit = max(_paces[call.stage].limit_s() for call in calls) + _GRACE_S
    with suppress(Exception):  # a stderr without a file
        faulthandler.dump_traceback_later(limit, exit=True, file=sys.__stderr__ or sys.stderr)
        _armed = True


def _describe(thread: int) -> str:
    """Return the innermost calls of a thread in one line, the innermost first."""
    frame: FrameType | None = sys._current_frames().get(thread)
    frames = traceback.extract_stack(frame)[::-1] if frame else []
    return " < ".join(
        f"{one.name} ({one.filename.rpartition('/')[2]}:{one.lineno})" for one in frames[:_FRAMES]
    )
