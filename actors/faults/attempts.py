"""Who tries which split, so that a split that kills its workers is known for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

from .blame import JudgedError, find_blame
from .load_errors import describe_load_error
from .process_end import BROKEN, Farewell, before_end, end_this_process

# A split is suspected after this many workers died over it. One death says little: a machine was
# taken away, or another split of the same worker killed it.
DEATHS = 2
# After this many more deaths, with the split in an isolated process, no row can be found at fault.
DEATHS_ISOLATED = 3
# An actor that dies this many times while it loads its model is given up.
DEATHS_LOADING = 3

_ISOLATED = "isolated"

T = TypeVar("T")


class AttemptError(RuntimeError):
    """An attempt can't be recorded: the output is not writable."""


class SplitGivenUp(JudgedError):
    """A split killed its workers too often, and no row could be found at fault."""


class Attempts(Protocol):
    """Small files in the output, one for each attempt that is under way.

    A process that dies leaves its file behind, and so tells the next one.
    """

    def names(self) -> list[str]:
        """List all attempts, also those of living processes."""

    def begin(self, what: str) -> str:
        """Record an attempt of this process, and return its name, "WHAT.random".

        Raises AttemptError.
        """

    def end(self, names: Iterable[str]) -> None:
        """Remove attempts; some may be gone already."""

    def explain(self, name: str, reason: str) -> None:
        """Add to an attempt of this process why the process ends itself."""

    def reasons(self, names: Iterable[str]) -> list[str]:
        """Return why processes ended themselves, of those attempts that say it."""

    def dead_attempts(self, names: Iterable[str]) -> list[str]:
        """Return those whose process no longer runs, as far as this machine can tell."""

    def loader_key(self) -> str:
        """Name the loading of an actor: the same when Ray starts the actor again."""


def has_suspects(names: list[str]) -> bool:
    """Return whether some split may be suspected."""
    parts = Counter(name.split(".", 1)[0] for name in names if name.startswith("part-"))
    return max(parts.values(), default=0) >= DEATHS


@contextmanager
def track_attempt(attempts: Attempts, what: str) -> Iterator[None]:
    """Record an attempt during the block; it stays recorded if the process dies, or must exit.

    An error after which this process is of no use ends it, if it is replaceable.
    """
    name = attempts.begin(what)
    farewell = Farewell(partial(attempts.explain, name), partial(attempts.end, [name]))
    with before_end(farewell):
        try:
            yield
        except SystemExit:
            raise
        except BaseException as error:
            if find_blame(error) == "process":
                end_this_process(describe_load_error(error), BROKEN)
            attempts.end([name])
            raise
        attempts.end([name])


def run_attempt(
    attempts: Attempts,
    seen: list[str],
    part: str,
    usual: Callable[[], T],
    isolated: Callable[[], T],
) -> T:
    """Process a split as usual, or isolated if it killed its workers before.

    Args:
        seen: names of attempts, listed before this process started with the split.
        part: the part of the split.

    Raises SplitGivenUp.
    """
    deaths = [name for name in seen if name.startswith(f"{part}.")]
    if len(deaths) >= DEATHS:
        deaths = attempts.dead_attempts(deaths)
    if len(deaths) < DEATHS:
        with track_attempt(attempts, part):
            return usual()
    alone = sum(name.startswith(f"{part}.{_ISOLATED}.") for name in deaths)
    if alone >= DEATHS_ISOLATED:
        reasons = attempts.reasons(deaths)
        raise SplitGivenUp(
            f"its workers died {len(deaths)} times, and no row could be found at fault"
            + (f"; one of them ended itself: {reasons[-1]}" if reasons else "")
        )
    with track_attempt(attempts, f"{part}.{_ISOLATED}"):
        result = isolated()
    attempts.end(deaths)
    return result
