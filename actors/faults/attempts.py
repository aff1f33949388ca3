"""Who tries which split, so that a split that kills its workers is known for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

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


class SplitGivenUp(RuntimeError):
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
    """Record an attempt during the block; it stays recorded if the process dies, or must exit."""
    name = attempts.begin(what)
    try:
        yield
    except SystemExit:
        raise
    except BaseException:
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
        raise SplitGivenUp(
            f"its workers died {len(deaths)} times, and no row could be found at fault"
        )
    with track_attempt(attempts, f"{part}.{_ISOLATED}"):
        result = isolated()
    attempts.end(deaths)
    return result
