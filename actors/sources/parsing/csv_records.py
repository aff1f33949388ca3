"""The records of a CSV file, and where each starts: a newline within quotes ends none."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# A field may hold a whole document; the csv module stops at 128 KiB.
_LONGEST_FIELD = 2**30


@dataclass(frozen=True)
class Record:
    """start, stop: its bytes. closed: False for one in which the file ends within quotes.

    broken: why it has no fields, where it is none. lines: those that were read up to its end.
    """

    start: int
    stop: int
    fields: list[str]
    closed: bool = True
    broken: str = ""
    lines: int = 1


def find_records(lines: Iterable[bytes], delimiter: str, start: int = 0) -> Iterator[Record]:
    """Those of lines of which the first starts at `start`; blank lines are none.

    Fields are decoded as Latin-1, a character per byte. One with a bare carriage return outside
    of quotes is broken.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    feed = _Feed(lines, start)
    reader = csv.reader(feed, delimiter=delimiter)
    while True:
        first = feed.place
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(first, feed.place, [], True, str(error), feed.lines_read)
            reader = csv.reader(feed, delimiter=delimiter)  # the old one is within that line
            continue
        if feed.ended:
            # What was added is a record of its own, unless the file ended within quotes.
            if feed.place > first:
                yield Record(first, feed.place, fields, closed=False)
            return
        if fields:
            yield Record(first, feed.place, fields, lines=feed.lines_read)


class _Feed:
    """Lines as text, and one more to tell where the last record ends. place: bytes handed out."""

    def __init__(self, lines: Iterable[bytes], place: int) -> None:
        self.lines, self.place, self.ended, self.lines_read = iter(lines), place, False, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.ended:
            raise StopIteration
        line = next(self.lines, None)
        if line is None:
            self.ended = True
            return '"end"'
        self.place += len(line)
        self.lines_read += 1
        return line.decode("latin-1")
