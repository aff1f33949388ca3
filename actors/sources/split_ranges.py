"""Cut files into the ranges that become splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..storage.input_file import InputFile

# A split is a few seconds to a minute of work: long enough to hide the cost of scheduling and
# writing, with enough rows to fill micro-batches of equal length; short enough to lose in a crash.
_FEWEST_ROWS, MOST_ROWS = 64, 8192
# So many bytes of text are enough: of books, one may be minutes of work.
_FEWEST_BYTES = 2**20
# Decoded media take far more memory than a row of text, whatever the input holds of them.
MOST_MEDIA_ROWS = 1024
FEW_SPLITS = 32  # fewer keep no cluster busy
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class SplitRange:
    """A range that becomes a split: rows or bytes `start` up to `stop` of a file, or a bundle.

    file: the file, or an entry that stands for all files of a bundle.
    stop: exclusive; -1 is the end of the file.
    rows: the number of rows; None where only reading the file tells it.
    bundle: the files of a bundle, each of which is a row.
    """

    file: InputFile
    start: int
    stop: int
    rows: int | None
    bundle: tuple[InputFile, ...] = ()


def choose_rows_per_split(rows: float, bytes_per_row: float, most: int = MOST_ROWS) -> int:
    """Return how many rows a split should have in an input of `rows` rows, `most` at most."""
    fewest: float = _FEWEST_ROWS
    if most > MOST_MEDIA_ROWS:
        fewest = min(fewest, _FEWEST_BYTES / max(bytes_per_row, 1))
    count = min(max(rows / FEW_SPLITS, fewest), most)
    return max(int(min(count, MOST_BYTES / max(bytes_per_row, 1))), 1)


def cut_evenly(length: int, step: int) -> list[tuple[int, int]]:
    """Cut `length` into ranges of at most `step`, all about equally long."""
    count = -(-length // step)
    cuts = [length * i // count for i in range(count + 1)] if count else []
    return list(zip(cuts, cuts[1:], strict=False))


def cut_rows(
    files: list[InputFile],
    counts: Sequence[int | None],
    size: int,
    rows_per_part: int | None,
    limit: int | None,
    most_rows: int = MOST_ROWS,
) -> Iterator[SplitRange]:
    """Cut files into ranges of rows.

    counts: the rows of each file. A file whose count is None becomes one split, and counts as
        one row of the limit.
    size: bytes of all files together, as in memory.
    most_rows: the most rows of a range whose size is chosen.
    """
    total = sum(count or 0 for count in counts)
    step = rows_per_part or choose_rows_per_split(total, size / max(total, 1), most_rows)
    left = total if limit is None else limit
    for file, count in zip(files, counts, strict=True):
        if count is None:
            if limit is None or left:
                yield SplitRange(file, 0, -1, None)
            left -= limit is not None and left > 0
            continue
        rows = min(count, left)
        left -= rows
        yield from (SplitRange(file, a, b, b - a) for a, b in cut_evenly(rows, step))
