"""The splits of a run that could not be processed, and whether to try the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipemill.actors.split import Split
from pipemill.actors.split_result import SplitResult

_SHOWN = 3
# After so many splits in a row that may not be read, the others are not tried.
_MOST_REFUSED = 100
_WHY = {
    "access": "may not be read: credentials may have expired",
    "away": "need media of a server that is away",
}


class FailedSplits:
    """Counts the splits that failed, and keeps what is said of the first ones."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self._splits = splits
        self._count = 0
        # A million splits may fail. Those of one file, for one reason, are one line.
        self._shown: dict[tuple[str, str], tuple[Split, int]] = {}
        self._in_a_row: Counter[str] = Counter()  # by cause
        self._refused: set[str] = set()  # the files of those in a row
        self._other = splits[0].path if splits else None  # a file that is none of them

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, result: SplitResult) -> None:
        """Count a split that failed."""
        self._count += 1
        key = (result.split.path, str(result.error))
        split, more = self._shown.get(key, (result.split, -1))
        if more >= 0 or len(self._shown) < _SHOWN:
            self._shown[key] = (split, more + 1)
        if result.cause not in _WHY:
            self.note_success()
            return
        self._in_a_row[result.cause] += 1
        if result.cause == "access":
            self._refused.add(result.split.path)

    def note_success(self) -> None:
        """Note that a split may be read."""
        self._in_a_row.clear()
        self._refused.clear()

    def find_hopeless(self) -> str | None:
        """Return why the other splits would fail, too; None if they are worth a try.

        All splits of one file may be refused while the other files can be read.
        """
        for cause, count in self._in_a_row.items():
            if count < _MOST_REFUSED or (cause == "access" and self._may_be_one_file()):
                continue
            return f"{count:,} splits in a row {_WHY[cause]}. The splits after them were not tried"
        return None

    def _may_be_one_file(self) -> bool:
        if len(self._refused) >= _MOST_REFUSED:
            return False
        if self._other in self._refused:
            paths = (split.path for split in self._splits)
            self._other = next((path for path in paths if path not in self._refused), None)
        return self._other is not None

    def lines(self) -> list[str]:
        """Return a line for each of the first that failed, and one for the others."""
        lines = [_describe(*one, error) for (_, error), one in self._shown.items()]
        left = self._count - sum(more + 1 for _, more in self._shown.values())
        return lines + ([f"… and {left} more"] if left else [])


def _describe(split: Split, more: int, error: str) -> str:
    others = f" and {more:,} more of this file" if more else ""
    return f"{split.place} (split {split.number}{others}): {error}"
