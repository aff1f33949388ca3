"""The progress bar: rows, rows/s, time left, dead letters. On stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


class Progress:
    """total: from the rows and bytes seen so far to the rows there are."""

    def __init__(self, label: str, total: Callable[[int], int]) -> None:
        self.total, self.rows, self.dead = total, 0, 0
        # Into a log file a line now and then; on a terminal as it happens.
        pause = 0.2 if sys.stderr.isatty() else 10.0
        self.bar = tqdm(
            total=total(0) or None,
            desc=label,
            unit=" rows",
            file=sys.stderr,
            mininterval=pause,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def add(self, line: dict[str, Any]) -> None:
        """Counts a finished split."""
        self.rows += line["rows"] or 0
        self.dead += line["dead"] or 0
        self.bar.total = max(self.total(self.rows), self.rows)
        self.bar.set_postfix_str(f"{self.dead} dead letters", refresh=False)
        self.bar.update(line["rows"] or 0)
