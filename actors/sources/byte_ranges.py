"""Split files into byte ranges where only reading a file tells which rows it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from ..storage.backoff import retry_on_driver
from ..storage.file_names import find_compression
from ..storage.input_file import InputFile
from ..storage.parallel import map_parallel
from .bad_file import BAD_FILE
from .split_ranges import (
    FEW_SPLITS,
    MOST_ROWS,
    FileRanges,
    SplitRange,
    bundle_small_files,
    choose_rows_per_split,
    cut_evenly,
)

SAMPLED_FILES, SAMPLED_ROWS = 16, 2000
# A file that must be cut between rows is read to find where, if it is larger than this, or one of a
# few files with rows for several splits.
LARGE_FILE = 8 * 2**20
_COMPRESSED = 4  # bytes of text to a compressed one, about

# The first byte of each row of a file and the byte after its last, in order.
RowOffsets = Iterable[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class ByteRangePlanner:
    """Split files into byte ranges, and read no more of them than needed.

    A bad file becomes a single split, and counts as one row of the limit. Of very many files,
    neighbours that are small are bundled.

    row_offsets: finds the rows of a file.
    can_cut_anywhere: tells whether a range of a file may start and end in the middle of a row;
        None if it never may.
    large_file: a file of more bytes than this that must be cut between rows is read for it.
    cuts_small_files: whether a smaller one is read for it, too, if it seems to have rows for
        several splits, and the files are too few to be splits themselves.
    most_bytes: the most bytes of a range of several rows, in files that are read.
    keeps_empty: whether a file of 0 bytes becomes a split, since it is not of its format.
    most_rows: the most rows of a range whose size is chosen, about.
    """

    row_offsets: Callable[[InputFile], RowOffsets]
    can_cut_anywhere: Callable[[InputFile], bool] | None = None
    large_file: int = field(default_factory=lambda: LARGE_FILE)
    cuts_small_files: bool = True
    most_bytes: int | None = None
    keeps_empty: bool = False
    most_rows: int = MOST_ROWS

    def plan(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        """Return the ranges of all files, in order, of about equal size.

        rows_per_part: the exact number of rows in each, or None to choose it.
        limit: the number of rows to read, from the start.
        """
        width = self._measure_row_width(files)
        rows = sum(map(_estimate_bytes, files)) / width
        wanted = rows if limit is None else min(rows, limit)
        step = rows_per_part or choose_rows_per_split(wanted, width, self.most_rows)
        cuts_small_files = self.cuts_small_files and len(files) < FEW_SPLITS
        planner = replace(self, cuts_small_files=cuts_small_files)

        def plan_file(file: InputFile, left: int | None) -> FileRanges:
            parts = planner._plan_file(file, rows_per_part, step, width, left)
            if len(parts) != 1 or (left is not None and (parts[0].rows or 0) >= left):
                return FileRanges(parts, None)
            rows: float | None = parts[0].rows
            if rows is None:
                is_bad = rows_per_part or left is not None  # the rows of others were counted
                rows = 1 if is_bad else _estimate_bytes(file) / width
            return FileRanges(parts, rows / step)

        if limit is None:
            planned = map_parallel(lambda file: plan_file(file, None), files)
        else:
            planned = _plan_rows(plan_file, files, limit)
        return list(bundle_small_files(planned, len(files), by_rows=False))

    def _plan_file(
        self,
        file: InputFile,
        rows_per_part: int | None,
        step: int,
        width: float,
        limit: int | None,
    ) -> list[SplitRange]:
        """Return the ranges of a file: a single one for a bad file."""

        def plan() -> list[SplitRange]:
            if rows_per_part or limit is not None:
                most_bytes = None if rows_per_part else self.most_bytes
                return cut_counted_rows(file, self.row_offsets(file), step, limit, most_bytes)
            return self._cut_file(file, step, width)

        try:
            # Retried one by one: of many thousands, some may fail each time.
            return retry_on_driver(plan, file.path)
        except BAD_FILE:
            return [_take_whole(file)]

    def _cut_file(self, file: InputFile, step: int, width: float) -> list[SplitRange]:
        has_unknown_size = self._has_unknown_size(file)
        cuts = cut_evenly(file.size, max(int(step * width), 1))
        if has_unknown_size or find_compression(file.path) or self.can_cut_anywhere is None:
            at_rows = True
        else:
            at_rows = len(cuts) > 1 and not self.can_cut_anywhere(file)
        seems_long = _estimate_bytes(file) > step * width
        is_read = file.size > self.large_file or (self.cuts_small_files and seems_long)
        if at_rows and is_read:
            return cut_counted_rows(file, self.row_offsets(file), step, None, self.most_bytes)
        if at_rows or len(cuts) <= 1:
            return [_take_whole(file)] if file.size or has_unknown_size or self.keeps_empty else []
        return [SplitRange(file, start, stop, None) for start, stop in cuts]

    def _has_unknown_size(self, file: InputFile) -> bool:
        # Some web servers do not say how long a file is.
        if file.size or "://" not in file.path:
            return False
        return next(iter(self.row_offsets(file)), None) is not None

    def _measure_row_width(self, files: list[InputFile]) -> float:
        """Return the mean bytes of a row, by the first rows of the first file that has any."""
        for file in sample_evenly(files, SAMPLED_FILES):
            try:
                widths = [b - a for a, b in islice(self.row_offsets(file), SAMPLED_ROWS)]
            except BAD_FILE:
                continue
            if widths:
                return max(sum(widths) / len(widths), 1)
        return 1


def _plan_rows(
    plan_file: Callable[[InputFile, int], FileRanges], files: list[InputFile], limit: int
) -> Iterator[FileRanges]:
    """Yield the ranges of the first `limit` rows."""
    for file in files:
        if not limit:
            break
        planned = plan_file(file, limit)
        limit -= sum(1 if part.rows is None else part.rows for part in planned.ranges)
        yield planned


def cut_counted_rows(
    file: InputFile,
    offsets: RowOffsets,
    step: int,
    limit: int | None,
    most_bytes: int | None = None,
) -> list[SplitRange]:
    """Return byte ranges of `step` rows, or of fewer where those exceed `most_bytes`."""
    ranges: list[SplitRange] = []
    start, stop, count = 0, 0, 0
    for number, (first, after) in enumerate(offsets):
        if number == limit:
            break
        if count == step or (most_bytes and count and after - start > most_bytes):
            ranges.append(SplitRange(file, start, first, count))
            count = 0
        start = start if count else first
        count, stop = count + 1, after
    if count:
        ranges.append(SplitRange(file, start, stop, count))
    return ranges


def sample_evenly(files: list[InputFile], count: int) -> list[InputFile]:
    """Return up to `count` files, spread evenly from the first to the last."""
    numbers = np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)
    return [files[i] for i in dict.fromkeys(numbers.tolist())]


def put_sample_first(files: list[InputFile]) -> list[InputFile]:
    """Return the files, the `SAMPLED_FILES` of `sample_evenly` before the others."""
    sampled = dict.fromkeys(sample_evenly(files, SAMPLED_FILES))
    return [*sampled, *(file for file in files if file not in sampled)]


def _estimate_bytes(file: InputFile) -> int:
    """Return the bytes of a file's rows, about."""
    return file.size * (_COMPRESSED if find_compression(file.path) else 1)


def _take_whole(file: InputFile) -> SplitRange:
    return SplitRange(file, 0, -1, None)
