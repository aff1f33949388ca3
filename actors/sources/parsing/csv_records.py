"""Find the records of a CSV file: a newline in quotes does not end one."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# A field may hold a whole document; the csv module stops at 128 KiB.
_LONGEST_FIELD = 2**30
# How the csv module begins to speak of a bare carriage return.
_NEW_LINE = "new-line character"
_BLANK = (b"\n", b"\r\n")
_BARE_RETURN = (
    "a carriage return (CR) stands outside of quotes and without a line feed: put the field into "
    "quotes, or end the lines with LF, as `tr '\\r' '\\n'` does"
)


@dataclass(frozen=True)
class Record:
    """A record of a CSV file.

    start, stop: its first byte, and the byte after its last.
    fields: as Latin-1, a character per byte.
    closed: False if the file ends in the quotes of this record.
    broken: why it is not a record, if it is not; then it has no fields.
    lines: the number of lines read up to its end.
    """

    start: int
    stop: int
    fields: list[str]
    closed: bool = True
    broken: str = ""
    lines: int = 1


def find_records(lines: Iterable[bytes], delimiter: str, start: int = 0) -> Iterator[Record]:
    """Yield the records in some lines. Blank lines are left out.

    A record with a bare carriage return outside of quotes is broken.

    start: the first byte of the first line.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    feed = _Feed(lines, start)
    reader = csv.reader(feed, delimiter=delimiter)
    while True:
        first = feed.position
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = _BARE_RETURN if str(error).startswith(_NEW_LINE) else str(error)
            yield Record(first, feed.position, [], True, reason, feed.lines_read)
            reader = csv.reader(feed, delimiter=delimiter)  # the old one is inside that line
            continue
        if feed.ended:
            # The added line is a separate record, unless the file ended in quotes.
            if feed.position > first:
                yield Record(first, feed.position, fields, closed=False, lines=feed.lines_read)
            return
        if fields:
            yield Record(first, feed.position, fields, lines=feed.lines_read)


def find_record_offsets(
    lines: Iterable[bytes], delimiter: str, start: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield where the records of `find_records` start and stop; most lines need no parsing."""
    left = _Ahead(lines)
    # It gets lines with quotes, and those that belong to the same record.
    records, parsed, position = find_records(left, delimiter), 0, start
    for line in left.lines:
        stop = position + len(line)
        if b'"' in line or (b"\r" in line and line[line.find(b"\r") :] != b"\r\n"):
            left.line = line
            record = next(records, None)
            if record is None:
                return
            yield position + record.start - parsed, position + record.stop - parsed
            stop, parsed = position + record.stop - parsed, record.stop
        elif line not in _BLANK:
            yield position, stop
        position = stop


class _Ahead:
    """Lines, and one that was taken from them."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.lines, self.line = iter(lines), b""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line, self.line = self.line or next(self.lines), b""
        return line


class _Feed:
    """Lines as text, and one more that tells where the last record ends.

    position: the bytes of the lines so far.
    """

    def __init__(self, lines: Iterable[bytes], position: int) -> None:
        self.lines, self.position, self.ended, self.lines_read = iter(lines), position, False, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.ended:
            raise StopIteration
        line = next(self.lines, None)
        if line is None:
            self.ended = True
            return '"end"'
        self.position += len(line)
        self.lines_read += 1
        return line.decode("latin-1")
