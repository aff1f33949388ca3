"""How much a split holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..storage.listing import InputFile

# A split is a few seconds to a minute of work: long enough to hide what scheduling and writing
# cost, with rows enough to fill micro-batches of equal length; short enough to lose in a crash.
_FEWEST_ROWS, _MOST_ROWS = 64, 8192
_SPLITS = 32
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SplitRange:
    """What becomes a split: rows or bytes from `start` up to `stop` of a file, or a bundle.

    file: the file, or what stands for a bundle's files together. A stop of -1 is the end.
    rows: how many rows it holds; None where only reading would tell.
    bundle: the files of a bundle, each of which is a row.
    """

    file: InputFile
    start: int
    stop: int
    rows: int | None
    bundle: tuple[InputFile, ...] = ()


def rows_per_split(rows: float, bytes_per_row: float) -> int:
    """For a whole input of so many rows."""
    wanted = min(max(rows / _SPLITS, _FEWEST_ROWS), _MOST_ROWS)
    return max(int(min(wanted, MOST_BYTES / max(bytes_per_row, 1))), 1)


def even_ranges(length: int, step: int) -> list[tuple[int, int]]:
    """`length` cut into pieces of at most `step`, all about equally long."""
    count = -(-length // step)
    cuts = [length * i // count for i in range(count + 1)] if count else []
    return list(zip(cuts, cuts[1:], strict=False))


def row_ranges(
    files: list[InputFile],
    counts: Sequence[int | None],
    size: int,
    rows_per_part: int | None,
    limit: int | None,
) -> Iterator[SplitRange]:
    """Row ranges of files that hold so many rows each; `size` is all files' bytes, as in memory.

    A file of which that is not known is one piece, and one row.
    """
    total = sum(count or 0 for count in counts)
    step = rows_per_part or rows_per_split(total, size / max(total, 1))
    left = total if limit is None else limit
    for file, count in zip(files, counts, strict=True):
        if count is None:
            if limit is None or left:
                yield SplitRange(file, 0, -1, None)
            left -= limit is not None and left > 0
            continue
        taken = min(count, left)
        left -= taken
        yield from (SplitRange(file, a, b, b - a) for a, b in even_ranges(taken, step))


def counted_ranges(
    file: InputFile,
    places: Iterable[tuple[int, int]],
    step: int,
    limit: int | None,
    most_bytes: int | None = None,
) -> list[SplitRange]:
    """Byte ranges of exactly `step` rows (fewer, where those are more than `most_bytes`).

    places: the first byte of each row, and the one behind its last, in order.
    """
    pieces: list[SplitRange] = []
    start, end, count = 0, 0, 0
    for number, (first, behind) in enumerate(places):
        if number == limit:
            break
        if count == step or (most_bytes and count and behind - start > most_bytes):
            pieces.append(SplitRange(file, start, first, count))
            count = 0
        start = start if count else first
        count, end = count + 1, behind
    if count:
        pieces.append(SplitRange(file, start, end, count))
    return pieces
