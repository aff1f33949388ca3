"""Choose how many tokens a micro-batch holds: a given number, or the fastest of a few measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

_ROUNDS = 2  # micro-batches measured of each candidate
_FULL = 0.5  # a micro-batch with less than this share of its budget tells nothing about it


class TokenBudget:
    """The most tokens in a micro-batch of one model on one device.

    candidates: the budgets to try, the likely best first; a single one is not measured.
    """

    def __init__(self, *candidates: int) -> None:
        self.candidates: Sequence[int] = candidates
        self._best = candidates[0] if len(candidates) == 1 else None
        self._tokens: dict[int, int] = defaultdict(int)
        self._seconds: dict[int, float] = defaultdict(float)
        self._runs: dict[int, int] = defaultdict(int)

    # The first micro-batch warms up memory, kernels and caches. It is not measured.
    _warm = False

    @property
    def is_final(self) -> bool:
        """Tell whether measuring is over."""
        return self._best is not None

    @property
    def tokens(self) -> int:
        """Return the budget of the next micro-batch."""
        if self._best is not None:
            return self._best
        return min(self.candidates, key=lambda candidate: self._runs[candidate])

    def record(self, budget: int, cost: int, tokens: int, seconds: float) -> None:
        """Record a micro-batch that was cut by `budget`.

        cost: its tokens with padding. One that was not filled counts as a run, but not as measured.
        tokens: its tokens without padding.
        """
        if self.is_final:
            return
        if not self._warm:
            self._warm = True
            return
        if cost >= _FULL * budget:
            self._tokens[budget] += tokens
            self._seconds[budget] += seconds
        self._runs[budget] += 1
        if min(self._runs[candidate] for candidate in self.candidates) >= _ROUNDS:
            self._best = max(self.candidates, key=self._compute_rate)

    def halve(self, tokens: int) -> None:
        """Limit the budget to half of `tokens`, which did not fit in memory."""
        most = max(tokens // 2, 1)
        self.candidates = [c for c in self.candidates if c <= most] or [most]
        if len(self.candidates) == 1 or (self._best or 0) > most:
            self._best = max(self.candidates, key=self._compute_rate)

    def _compute_rate(self, candidate: int) -> float:
        seconds = self._seconds[candidate]
        # A candidate that was never filled is not better than the first.
        return self._tokens[candidate] / seconds if seconds else 0.0
