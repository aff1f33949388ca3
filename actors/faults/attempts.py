"""Who tries which split, so that a split that kills its workers is known for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

# So many workers that died over a split make it a suspect. One death says little: a machine was
# taken away, or another split of the same worker killed it.
DEATHS = 2
# Workers that died although the split was in a process of its own: no row can be found.
DEATHS_ISOLATED = 3
# Times that an actor died while it loaded its model.
DEATHS_LOADING = 3

_ISOLATED = "isolated"


class AttemptError(RuntimeError):
    """An attempt can't be written down; the output can't be written to."""


class Attempts(Protocol):
    """Small files in the output, each there as long as its attempt lasts.

    What a process leaves behind when it dies tells the next one.
    """

    def names(self) -> list[str]:
        """Of all attempts there are, also those of living processes."""

    def begin(self, what: str) -> str:
        """Writes down that this process begins with it; the attempt's name, "WHAT.random".

        Raises AttemptError.
        """

    def end(self, names: Iterable[str]) -> None:
        """Removes them; some may be gone already."""

    def gone(self, names: Iterable[str]) -> list[str]:
        """Of these, the ones whose process no longer runs, as far as this machine can tell."""

    def loader(self) -> str:
        """What an actor's loading is called: the same when Ray starts the actor again."""


def has_suspects(names: list[str]) -> bool:
    """Whether some split may be a suspect."""
    parts = Counter(name.split(".", 1)[0] for name in names if name.startswith("part-"))
    return max(parts.values(), default=0) >= DEATHS


@contextmanager
def track_attempt(attempts: Attempts, what: str) -> Iterator[None]:
    """Stays written down if the process dies within, or is told to exit."""
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
    usual: Callable[[], dict[str, Any]],
    isolated: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Does a split as usual, or isolated if it killed its workers before.

    seen: names of attempts, listed before this process began with the split.
    """
    deaths = [name for name in seen if name.startswith(f"{part}.")]
    if len(deaths) >= DEATHS:
        deaths = attempts.gone(deaths)
    if len(deaths) < DEATHS:
        with track_attempt(attempts, part):
            return usual()
    alone = sum(name.startswith(f"{part}.{_ISOLATED}.") for name in deaths)
    if alone >= DEATHS_ISOLATED:
        return {
            "error": f"its workers died {len(deaths)} times, and no row could be found at fault"
        }
    with track_attempt(attempts, f"{part}.{_ISOLATED}"):
        line = isolated()
    attempts.end(deaths)
    return line
