"""Cut files into the ranges that become splits; bundle small files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

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
# Of files of rows: fewer splits than this stay as they are, and each file has its own part.
_FEWEST_TO_BUNDLE = 256
MOST_FILES = 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SplitRange:
    """A range that becomes a split: rows or bytes `start` up to `stop` of a file, or a bundle.

    file: the file, or an entry that stands for all files of a bundle.
    stop: exclusive; -1 is the end of the file.
    rows: the number of rows; None where only reading the file tells it.
    bundle, counts: of a bundle, as in `Split`.
    """

    file: InputFile
    start: int
    stop: int
    rows: int | None
    bundle: tuple[InputFile, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FileRanges:
    """The ranges of a file.

    share: which share of a split the whole file is; None if it does not become one range.
    """

    ranges: list[SplitRange]
    share: float | None


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
    """Cut files into ranges of rows; of very many files, neighbours that are small are bundled.

    counts: the rows of each file. A file whose count is None becomes one split, and counts as
        one row of the limit.
    size: bytes of all files together, as in memory.
    most_rows: the most rows of a range whose size is chosen.
    """
    total = sum(count or 0 for count in counts)
    wanted = total if limit is None else min(total, limit)
    step = rows_per_part or choose_rows_per_split(wanted, size / max(total, 1), most_rows)

    def cut_files() -> Iterator[FileRanges]:
        left = total if limit is None else limit
        for file, count in zip(files, counts, strict=True):
            if count is None:
                if limit is None or left:
                    yield FileRanges([SplitRange(file, 0, -1, None)], None)
                left -= limit is not None and left > 0
                continue
            rows = min(count, left)
            left -= rows
            ranges = [SplitRange(file, a, b, b - a) for a, b in cut_evenly(rows, step)]
            is_whole = len(ranges) == 1 and rows == count
            yield FileRanges(ranges, rows / step if is_whole else None)

    return bundle_small_files(cut_files(), len(files), by_rows=True)


def bundle_small_files(
    planned: Iterable[FileRanges], files: int, *, by_rows: bool
) -> Iterator[SplitRange]:
    """Yield the ranges of all files, in order; of very many files, small neighbours are bundled.

    Args:
        planned: of each file.
        files: how many there are.
        by_rows: whether ranges are of rows: their reader is told how many a file has.
    """
    most = max(min(files // _FEWEST_TO_BUNDLE, MOST_FILES), 1)
    weighed = ((one, _weigh(one)) for one in planned if one.ranges)  # an empty file has none
    for group in group_neighbours(weighed, most, 1):
        if len(group) == 1:
            yield from group[0].ranges
        else:
            yield _join_ranges([one.ranges[0] for one in group], by_rows)


def _weigh(file: FileRanges) -> float:
    """Return which share of a split a file is; that of one that stays alone is infinite."""
    size = file.ranges[0].file.size
    # Some web servers do not say how long a file is.
    if file.share is None or not size:
        return float("inf")
    return max(file.share, size / MOST_BYTES)


def group_neighbours(
    weighed: Iterable[tuple[T, float]], most: int, most_weight: float
) -> Iterator[list[T]]:
    """Group neighbours: at most `most`, and more than one only up to a weight together.

    weighed: the items, each with its weight.
    """
    group: list[T] = []
    whole = 0.0
    for item, weight in weighed:
        if group and (len(group) == most or whole + weight > most_weight):
            yield group
            group, whole = [], 0.0
        group.append(item)
        whole += weight
    if group:
        yield group


def _join_ranges(ranges: list[SplitRange], by_rows: bool) -> SplitRange:
    known = tuple(one.rows for one in ranges if one.rows is not None)
    rows = sum(known) if len(known) == len(ranges) else None
    return make_bundle((one.file for one in ranges), rows, -1, known if by_rows else ())


def make_bundle(
    files: Iterable[InputFile], rows: int | None, stop: int, counts: tuple[int, ...] = ()
) -> SplitRange:
    """Return the range that is a bundle of files; `rows`, `stop` and `counts` as in `Split`."""
    bundle = tuple(files)
    digest = hashlib.sha256()
    for file in bundle:
        digest.update(f"{file.path}|{file.size}|{file.version}\n".encode())
    together = InputFile(bundle[0].path, sum(file.size for file in bundle), digest.hexdigest()[:16])
    return SplitRange(together, 0, stop, rows, bundle, counts)
