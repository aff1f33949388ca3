"""Find the records of a CSV file: a newline in quotes does not end one."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
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
PLAIN_QUOTES = "if quotes are ordinary characters in this file, set input.quotes to false"
_STRAY_QUOTE = f"a quote opens in this row, and does not close in it: {PLAIN_QUOTES}"


@dataclass(frozen=True)
class Dialect:
    """How a CSV file divides its fields.

    delimiter: the character between two fields.
    quotes: whether double quotes enclose fields.
    """

    delimiter: str = ","
    quotes: bool = True

    def make_reader(self, lines: Iterable[str], strict: bool = False) -> Iterator[list[str]]:
        """Return a reader of records. strict: it refuses what follows a closing quote."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
            strict=strict,
        )


@dataclass(frozen=True)
class Record:
    """A record of a CSV file.

    start, stop: its first byte, and the byte after its last.
    fields: as Latin-1, a character per byte.
    closed: False if the file ends in the quotes of this record.
    broken: why it is not a record, if it is not; then it has no fields.
    lines: the number of lines read up to its end.
    ahead: whether lines after it have been taken already.
    """

    start: int
    stop: int
    fields: list[str]
    closed: bool = True
    broken: str = ""
    lines: int = 1
    ahead: bool = False


def find_records(
    lines: Iterable[bytes], dialect: Dialect, width: int | None = None, start: int = 0
) -> Iterator[Record]:
    """Yield the records in some lines. Blank lines are left out.

    A record with a bare carriage return outside of quotes is broken, and so is one whose quote
    does not close, or only inside another record: those after it would be a part of its field.

    width: how many fields the header has; None for the header itself.
    start: the first byte of the first line.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    feed = _Feed(lines, start)
    reader = dialect.make_reader(feed)
    while True:
        first, reason = feed.position, ""
        feed.taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fields, reason = [], _BARE_RETURN if str(error).startswith(_NEW_LINE) else str(error)
            reader = dialect.make_reader(feed)  # the old one is inside that line
        else:
            if feed.ended and not feed.taken:
                return  # the added line is a record
            if _are_records(feed.taken, fields, dialect, width):
                feed.give_back(feed.taken[1:])
                fields, reason = [], _STRAY_QUOTE
        if fields or reason:
            stop, lines_read = feed.position, feed.lines_read
            yield Record(first, stop, fields, not feed.ended, reason, lines_read, feed.is_ahead)


def _are_records(
    lines: Sequence[bytes], fields: list[str], dialect: Dialect, width: int | None
) -> bool:
    """Tell whether lines that were parsed as one record are one each, but for a stray quote."""
    divider = dialect.delimiter.encode()
    width = width or lines[0].count(divider) + 1
    if len(lines) == 1 or width == 1:
        return False
    if any(line.count(divider) != width - 1 for line in lines if line not in _BLANK):
        return False
    try:
        next(dialect.make_reader((line.decode("latin-1") for line in lines), strict=True))
    except csv.Error:  # something follows the closing quote, or there is none
        return True
    return len(fields) != width


def find_record_offsets(
    lines: Iterable[bytes], dialect: Dialect, width: int | None = None, start: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield where the records of `find_records` start and stop; most lines need no parsing."""
    left = _Ahead(lines)
    # It gets lines with quotes, and those that belong to the same record.
    records, parsed, position = find_records(left, dialect, width), 0, start
    for line in left.lines:
        stop = position + len(line)
        if b'"' in line or (b"\r" in line and line[line.find(b"\r") :] != b"\r\n"):
            left.line = line
            for record in records:
                yield position + record.start - parsed, position + record.stop - parsed
                if not record.ahead:
                    break
            else:
                return
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
    taken: the lines since it was cleared.
    """

    def __init__(self, lines: Iterable[bytes], position: int) -> None:
        self.lines, self.position, self.ended, self.lines_read = iter(lines), position, False, 0
        self.taken: list[bytes] = []
        self._back: list[bytes] = []

    @property
    def is_ahead(self) -> bool:
        return bool(self._back)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.ended:
            raise StopIteration
        line = self._back.pop() if self._back else next(self.lines, None)
        if line is None:
            self.ended = True
            return '"end"'
        self.position += len(line)
        self.lines_read += 1
        self.taken.append(line)
        return line.decode("latin-1")

    def give_back(self, lines: Sequence[bytes]) -> None:
        """Take these lines, the last ones so far, once more."""
        self.position -= sum(map(len, lines))
        self.lines_read -= len(lines)
        self._back += reversed(lines)
        self.ended = False
