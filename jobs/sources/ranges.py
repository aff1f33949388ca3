"""How many rows a split holds."""

from __future__ import annotations

from dataclasses import dataclass

# A split is a few seconds to a minute of work: long enough to hide what scheduling and writing
# cost, with rows enough to fill micro-batches of equal length; short enough to lose in a crash.
_FEWEST_ROWS, _MOST_ROWS = 64, 8192
_SPLITS = 32
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Range:
    """Rows (Parquet) or bytes (JSONL) from `start` up to `stop` of a file.

    rows: how many rows it holds; None where only reading would tell.
    """

    start: int
    stop: int
    rows: int | None


def rows_per_split(rows: float, bytes_per_row: float) -> int:
    """For a whole input of so many rows."""
    wanted = min(max(rows / _SPLITS, _FEWEST_ROWS), _MOST_ROWS)
    return max(int(min(wanted, _MOST_BYTES / max(bytes_per_row, 1))), 1)


def even_ranges(length: int, step: int) -> list[tuple[int, int]]:
    """`length` cut into pieces of at most `step`, all about equally long."""
    count = -(-length // step)
    cuts = [length * i // count for i in range(count + 1)] if count else []
    return list(zip(cuts, cuts[1:], strict=False))
