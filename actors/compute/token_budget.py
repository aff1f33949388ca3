"""How many tokens a micro-batch holds: the user's number, or the fastest of a few, by measuring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

_ROUNDS = 2  # micro-batches of each candidate
_FULL = 0.5  # a micro-batch with less than this share of its budget says nothing about it


class TokenBudget:
    """The most tokens in a micro-batch of one model on one device.

    candidates: what is tried, the likely best first; a single one is not measured.
    """

    def __init__(self, *candidates: int) -> None:
        self.candidates: Sequence[int] = candidates
        self._best = candidates[0] if len(candidates) == 1 else None
        self._tokens: dict[int, int] = defaultdict(int)
        self._seconds: dict[int, float] = defaultdict(float)
        self._runs: dict[int, int] = defaultdict(int)

    # The first micro-batch of all warms up: memory, kernels, caches. It is not measured.
    _warm = False

    @property
    def settled(self) -> bool:
        """Whether nothing is tried any more."""
        return self._best is not None

    @property
    def tokens(self) -> int:
        """What to cut the next micro-batch by."""
        if self._best is not None:
            return self._best
        return min(self.candidates, key=lambda candidate: self._runs[candidate])

    def ran(self, budget: int, cost: int, tokens: int, seconds: float) -> None:
        """Takes note of a micro-batch that was cut by `budget`.

        cost: its tokens with padding; one that was not filled counts as tried, no more.
        """
        if self.settled:
            return
        if not self._warm:
            self._warm = True
            return
        if cost >= _FULL * budget:
            self._tokens[budget] += tokens
            self._seconds[budget] += seconds
        self._runs[budget] += 1
        if min(self._runs[candidate] for candidate in self.candidates) >= _ROUNDS:
            self._best = max(self.candidates, key=self._rate)

    def halve(self, tokens: int) -> None:
        """So many did not fit in memory: never again more than half of them."""
        most = max(tokens // 2, 1)
        self.candidates = [c for c in self.candidates if c <= most] or [most]
        if len(self.candidates) == 1 or (self._best or 0) > most:
            self._best = max(self.candidates, key=self._rate)

    def _rate(self, candidate: int) -> float:
        seconds = self._seconds[candidate]
        # One that was never filled is no better than the first.
        return self._tokens[candidate] / seconds if seconds else 0.0
