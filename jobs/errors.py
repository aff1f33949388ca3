"""The two ways a job ends without a report."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(ValueError):
    """The job as written can't run; said before a model loads or Ray starts. Exit status 2."""


class RunError(RuntimeError):
    """The job stopped before every row was accounted for; run it again to resume. Exit status 1."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint to end an error message with: the nearest right name, or all of them."""
    names = list(names)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
