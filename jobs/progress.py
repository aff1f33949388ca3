"""The progress bar: rows, rows/s, time left, dead letters. On stderr."""

from __future__ import annotations

import sys

from tqdm import tqdm


class Progress:
    """total: the rows there are, as far as is known; 0 if it is not."""

    def __init__(self, label: str, total: int) -> None:
        self.rows = self.dead = 0
        # Into a log file a line now and then; on a terminal as it happens.
        pause = 0.2 if sys.stderr.isatty() else 10.0
        self.bar = tqdm(
            total=total or None,
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

    def add(self, rows: int, dead: int, total: int) -> None:
        """Counts a finished split, after which so many rows are expected in all."""
        self.rows += rows
        self.dead += dead
        self.bar.total = max(total, self.rows)
        self.bar.set_postfix_str(f"{self.dead} dead letters", refresh=False)
        self.bar.update(rows)
