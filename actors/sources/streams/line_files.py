"""Files of lines, plain or compressed, and byte ranges of them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, Any

import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem

from pipemill.errors import ConfigError

from ...split import Split
from ...storage.file_formats import compression_of
from ...storage.filesystem import open_filesystem
from ...storage.listing import InputFile
from ..bad_file import BAD_FILE, BadFile
from ..parsing.json_documents import DocumentStream, is_document
from ..split_size import SplitRange, counted_ranges, even_ranges, rows_per_split
from .encodings import (
    HEAD,
    DecodedStream,
    RejoinedStream,
    check_is_text,
    foreign_encoding,
    is_foreign,
)
from .zstd import ZstdStream

SAMPLED_FILES, SAMPLED_ROWS = 16, 2000
# A smaller file that can't be cut just anywhere is one split; a larger one is read to find where.
LARGE = 8 * 2**20
_BUFFER = 2**20

# The first byte of each row of a file, and the one behind its last.
Places = Iterable[tuple[int, int]]


@dataclass(frozen=True)
class Line:
    """A row of a file as bytes. where: its place, for messages."""

    data: bytes
    where: str


@dataclass
class LineFiles:
    """blank: whether a line with nothing on it is a row.

    encoding: of files without a mark that says another.
    documents: whether a file may hold a JSON array, or objects over several lines.
    is_row: tells whether a line is what its file should hold.
    """

    options: dict[str, Any]
    blank: bool
    encoding: str | None = None
    documents: bool = False
    is_row: Callable[[bytes], bool] | None = None

    def open(self, path: str) -> IO[bytes]:
        """The bytes of a file, decompressed."""
        filesystem, inner = open_filesystem(path, self.options)
        compression = compression_of(path)
        if compression == "zstd":
            return io.BufferedReader(ZstdStream(filesystem.open(inner, "rb")), _BUFFER)
        stream = filesystem.open(inner, "rb", compression=compression)
        # Remote files read lines slowly by themselves.
        lines = isinstance(stream, LocalFileOpener | gzip.GzipFile)
        return stream if lines else io.BufferedReader(stream, _BUFFER)

    def open_text(self, path: str, start: int = 0) -> IO[bytes]:
        """Open a file as lines of UTF-8. It can be seeked in if its bytes are those lines.

        start: where reading will begin. Raises BadFile for a file that is no text.
        """
        stream = self.open(path)
        plain = compression_of(path) is None and stream.seekable()
        try:
            head, plain = self._head(path, stream, plain, start)
            encoding = foreign_encoding(head, self.encoding)
            if encoding is None:
                check_is_text(head)
            document = encoding is None and self._is_document(head)
            if plain and encoding is None and not document:
                return stream
            lines: io.RawIOBase = RejoinedStream(b"" if plain else head, stream)
            if encoding is not None:
                lines = DecodedStream(lines, encoding)
                head = _read(lines, HEAD) if self.documents else b""
                document = self._is_document(head)
                lines = RejoinedStream(head, lines)
            return io.BufferedReader(DocumentStream(lines) if document else lines, _BUFFER)
        except BaseException:
            stream.close()
            raise

    def _head(self, path: str, stream: IO[bytes], plain: bool, start: int) -> tuple[bytes, bool]:
        """The first bytes of a file, and whether the stream is then where it was."""
        if not plain:
            return _read(stream, HEAD), False
        filesystem, inner = open_filesystem(path, self.options)
        if start and not isinstance(filesystem, LocalFileSystem):
            # One small request; what the stream itself would fetch ahead is wasted.
            return filesystem.cat_file(inner, start=0, end=HEAD), True
        head = _read(stream, HEAD)
        try:
            stream.seek(0)
        except ValueError:  # a web server that sends a file from its start only
            return head, False
        return head, True

    def _is_document(self, head: bytes) -> bool:
        return self.documents and is_document(head, len(head) < HEAD)

    def can_be_cut_anywhere(self, path: str) -> bool:
        """Tell whether byte ranges of the file are ranges of its lines."""
        if compression_of(path) is not None:
            return False
        with self.open_text(path) as stream:
            if not stream.seekable():
                return False
            self._check_rows(path, islice(stream, SAMPLED_ROWS))
            return True

    def _check_rows(self, path: str, lines: Iterable[bytes]) -> None:
        """Raise BadFile where none of the first lines is what the file should hold."""
        lines = [line for line in lines if line.strip()]
        if lines and self.is_row is not None and not any(map(self.is_row, lines)):
            raise BadFile(f"{path}: its first lines are not what it should hold")

    def rows(self, file: InputFile) -> Iterator[tuple[int, bytes]]:
        """Every row of a file, with the place where it starts. Raises ConfigError, BadFile."""
        try:
            with self.open_text(file.path) as stream:
                place = 0
                for line in stream:
                    if self.blank or line.strip():
                        yield place, line
                    place += len(line)
        except BAD_FILE as error:
            raise BadFile(f"can't read {file.path}: {error}") from None
        except (OSError, zlib.error) as error:
            raise ConfigError(f"can't read {file.path}: {error}") from None

    def places(self, file: InputFile) -> Places:
        rows = self.rows(file)
        first = list(islice(rows, SAMPLED_ROWS))
        self._check_rows(file.path, (line for _, line in first))
        return ((place, place + len(line)) for place, line in chain(first, rows))

    def between(self, split: Split) -> Iterator[Line]:
        """Rows that start within the split; a stop of -1 is the end.

        The line that a range begins in the middle of belongs to the range before it.
        """
        path, start, stop = split.path, split.start, split.stop
        with self.open_text(path, start) as stream:
            place, number = 0, 0
            if stop < 0 and stream.seekable() and split.size:
                stop = split.size  # what was added since it was planned is not of the input
            if start > 0:
                number = skip(stream, start - 1)
                line = stream.readline()
                place = start - 1 + len(line)
                number += line.endswith(b"\n")
            counted = start == 0 or not stream.seekable()
            while stop < 0 or place < stop:
                line = stream.readline()
                if not line:
                    return
                number += 1
                if self.blank or line.strip():
                    here = f"line {number}" if counted else f"the line at byte {place}"
                    yield Line(line, f"{here} of {path}")
                place += len(line)

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        return cut_by_reading(
            files,
            rows_per_part,
            limit,
            self.places,
            anywhere=lambda file: (
                not is_foreign(self.encoding) and self.can_be_cut_anywhere(file.path)
            ),
        )


def _read(stream: IO[bytes] | io.RawIOBase, count: int) -> bytes:
    """So many bytes, or all there are."""
    parts = []
    while count > 0 and (part := stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def cut_by_reading(
    files: list[InputFile],
    rows_per_part: int | None,
    limit: int | None,
    places: Callable[[InputFile], Places],
    *,
    anywhere: Callable[[InputFile], bool] | None = None,
    large: int | None = None,
    most_bytes: int | None = None,
    empty: bool = False,
) -> list[SplitRange]:
    """Byte ranges of files whose rows only reading tells, read no further than is needed.

    A file that turns out to be a bad one is one piece.

    anywhere: tells whether a range of a plain file may start and end in the middle of a row.
    large: from how many bytes on a file is read to find where to cut it, where it must be.
    most_bytes: what no range of several rows is longer than, where a file is read.
    empty: whether a file of 0 bytes is a piece, too: it is none of its format.
    """
    width = _width(files, places)
    step = rows_per_part or rows_per_split(sum(file.size for file in files) / width, width)
    most_bytes = None if rows_per_part else most_bytes
    left = limit
    pieces: list[SplitRange] = []
    for file in files:
        try:
            # A web server may not tell how long a file is.
            unknown = (
                not file.size and "://" in file.path and next(iter(places(file)), None) is not None
            )
            cuts = even_ranges(file.size, max(int(step * width), 1))
            whole = compression_of(file.path) or anywhere is None or unknown
            counts = rows_per_part or limit is not None
            if not whole and not counts and len(cuts) > 1:
                assert anywhere is not None
                whole = not anywhere(file)
            if counts or (whole and file.size > (large or LARGE)):
                found = counted_ranges(file, places(file), step, left, most_bytes)
                left = None if left is None else left - sum(piece.rows or 0 for piece in found)
            elif whole or len(cuts) == 1:
                found = [SplitRange(file, 0, -1, None)] if file.size or unknown or empty else []
            else:
                found = [SplitRange(file, start, stop, None) for start, stop in cuts]
        except BAD_FILE:
            found = [SplitRange(file, 0, -1, None)]
        pieces += found
    return pieces


def _width(files: list[InputFile], places: Callable[[InputFile], Places]) -> float:
    """Bytes of a row, by the first rows of the first file that has any."""
    for file in spread(files, SAMPLED_FILES):
        try:
            widths = [stop - start for start, stop in islice(places(file), SAMPLED_ROWS)]
        except BAD_FILE:
            continue
        if widths:
            return max(sum(widths) / len(widths), 1)
    return 1


def skip(stream: IO[bytes], count: int) -> int:
    """Go on by so many bytes; return the ends of lines among them, where they are read."""
    if stream.seekable():
        stream.seek(count)
        return 0
    ends = 0
    while count > 0 and (some := stream.read(min(count, 2**20))):
        count -= len(some)
        ends += some.count(b"\n")
    return ends


def spread(files: list[InputFile], count: int) -> list[InputFile]:
    """Up to `count` files, from the first to the last."""
    places = np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)
    return [files[i] for i in dict.fromkeys(places.tolist())]


def in_place(pieces: list[tuple[np.ndarray, pa.Table]], count: int, schema: pa.Schema) -> pa.Table:
    """`count` rows: the pieces' at their numbers, nulls elsewhere."""
    source = np.full(count, -1, dtype=np.int64)
    numbers = [numbers for numbers, _ in pieces]
    if numbers:
        source[np.concatenate(numbers)] = np.arange(sum(map(len, numbers)))
    table = pa.concat_tables([schema.empty_table(), *(table for _, table in pieces)])
    return table.combine_chunks().take(pa.array(source, mask=source < 0))
