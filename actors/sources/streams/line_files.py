"""Read files of lines, plain or compressed, and byte ranges of them."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, Any

from fsspec.implementations.local import LocalFileOpener, LocalFileSystem

from pipemill.errors import ConfigError

from ...split import Split
from ...storage.file_names import find_compression
from ...storage.filesystem import open_filesystem
from ...storage.input_file import InputFile
from ..bad_file import BAD_FILE, BadFile
from ..byte_ranges import SAMPLED_ROWS, ByteRangePlanner, RowOffsets
from ..parsing.json_documents import DocumentStream, is_document
from ..split_ranges import SplitRange
from .encodings import (
    HEAD,
    DecodedStream,
    RejoinedStream,
    check_is_text,
    detect_encoding,
    is_foreign,
)
from .frames import FRAMED, FrameStream
from .kept_streams import Place, identify, place_before, seeks_slowly
from .read_bytes import counts_lines, read_up_to, skip_bytes

_BUFFER = 2**20


@dataclass(frozen=True)
class Line:
    """A row of a file as bytes.

    where: the line or byte at which it starts, for messages.
    """

    data: bytes
    where: str


@dataclass
class LineFiles:
    """Files whose rows are lines.

    blank: whether an empty line is a row.
    encoding: the encoding of files without a byte order mark.
    documents: whether a file may hold a JSON array, or objects over several lines.
    is_row: tells whether a line is what the file should hold.
    """

    options: dict[str, Any]
    blank: bool
    encoding: str | None = None
    documents: bool = False
    is_row: Callable[[bytes], bool] | None = None

    def open(self, path: str) -> IO[bytes]:
        """Open a file as a stream of its decompressed bytes."""
        filesystem, inner = open_filesystem(path, self.options)
        compression = find_compression(path)
        if compression in FRAMED:
            stream = FrameStream(filesystem.open(inner, "rb"), compression)
            return io.BufferedReader(stream, _BUFFER)
        stream = filesystem.open(inner, "rb", compression=compression)
        # Reading lines from a remote file is slow without a buffer.
        is_buffered = isinstance(stream, LocalFileOpener | gzip.GzipFile)
        return stream if is_buffered else io.BufferedReader(stream, _BUFFER)

    def open_text(self, path: str, start: int = 0) -> IO[bytes]:
        """Open a file as lines of UTF-8. The stream can seek if the file's bytes are these lines.

        start: where reading will begin.
        Raises BadFile for a file that is not text.
        """
        stream = self.open(path)
        plain = find_compression(path) is None and stream.seekable()
        try:
            head, plain = self._read_head(path, stream, plain, start)
            encoding = detect_encoding(head, self.encoding)
            if encoding is None:
                check_is_text(head)
            document = encoding is None and self._is_document(head)
            if plain and encoding is None and not document:
                return stream
            lines: io.RawIOBase = RejoinedStream(b"" if plain else head, stream)
            if encoding is not None:
                lines = DecodedStream(lines, encoding)
                head = read_up_to(lines, HEAD) if self.documents else b""
                document = self._is_document(head)
                lines = RejoinedStream(head, lines)
            return io.BufferedReader(DocumentStream(lines) if document else lines, _BUFFER)
        except BaseException:
            stream.close()
            raise

    def _is_row(self, line: bytes) -> bool:
        # A byte order mark alone is what some editors save of an empty text.
        return line != codecs.BOM_UTF8 if self.blank else not _is_blank(line)

    def _read_head(
        self, path: str, stream: IO[bytes], plain: bool, start: int
    ) -> tuple[bytes, bool]:
        """Return the first bytes of a file, and whether the stream is still at its start."""
        if not plain:
            return read_up_to(stream, HEAD), False
        filesystem, inner = open_filesystem(path, self.options)
        if start and not isinstance(filesystem, LocalFileSystem):
            # One small request; the stream would fetch much more in advance.
            return filesystem.cat_file(inner, start=0, end=HEAD), True
        head = read_up_to(stream, HEAD)
        try:
            stream.seek(0)
        except ValueError:  # a web server that only sends files from their start
            return head, False
        return head, True

    def _is_document(self, head: bytes) -> bool:
        return self.documents and is_document(head, len(head) < HEAD)

    def can_cut_anywhere(self, path: str) -> bool:
        """Tell whether byte ranges of the file are ranges of its lines."""
        if find_compression(path) is not None:
            return False
        with self.open_text(path) as stream:
            if not stream.seekable():
                return False
            self._check_rows(path, islice(stream, SAMPLED_ROWS))
            return True

    def _check_rows(self, path: str, lines: Iterable[bytes]) -> None:
        """Raise BadFile if none of the first lines is what the file should hold."""
        lines = [line for line in lines if not _is_blank(line)]
        if lines and self.is_row is not None and not any(map(self.is_row, lines)):
            raise BadFile(f"the first lines of {path} are not of its format")

    def rows(self, file: InputFile) -> Iterator[tuple[int, bytes]]:
        """Yield each row of a file, and the byte where it starts. Raises ConfigError, BadFile."""
        try:
            with self.open_text(file.path) as stream:
                position = 0
                for line in stream:
                    if self._is_row(line):
                        yield position, line
                    position += len(line)
        except BAD_FILE as error:
            raise BadFile(f"can't read {file.path}: {error}") from None
        except (OSError, zlib.error) as error:
            raise ConfigError(f"can't read {file.path}: {error}") from None

    def row_offsets(self, file: InputFile) -> RowOffsets:
        """Return the first byte of each row and the byte after its last."""
        rows = self.rows(file)
        first = list(islice(rows, SAMPLED_ROWS))
        self._check_rows(file.path, (line for _, line in first))
        return ((start, start + len(line)) for start, line in chain(first, rows))

    def read_split(self, split: Split) -> Iterator[Line]:
        """Yield the rows that start inside a split.

        If a split begins in the middle of a line, the line belongs to the split before it.
        """
        path, start, stop = split.path, split.start, split.stop
        file, how = identify(split.file, self.options), (self.encoding, self.blank, self.documents)
        with place_before(file, how, start, lambda: Place(self.open_text(path, start))) as place:
            stream = place.stream
            if stop < 0 and stream.seekable() and split.size:
                stop = split.size  # what was appended after planning is not input
            counts = counts_lines(path, start, stream)
            if start > place.position:
                place.number += skip_bytes(stream, start - 1, place.position, counts)
                line = stream.readline()
                place.position = start - 1 + len(line)
                place.number += line.endswith(b"\n")
            counted = start == 0 or counts
            # Of an array, or of objects over several lines, which have become lines.
            is_row = isinstance(getattr(stream, "raw", None), DocumentStream)
            while stop < 0 or place.position < stop:
                line = stream.readline()
                if not line:
                    return
                place.number += 1
                if self._is_row(line):
                    where = (
                        f"{'row' if is_row else 'line'} {place.number}"
                        if counted
                        else f"the line at byte {place.position}"
                    )
                    yield Line(line, f"{where} of {path}")
                place.position += len(line)
            place.stays = split.stop >= 0 and seeks_slowly(path, stream)

    def plan_splits(
        self,
        files: list[InputFile],
        rows_per_part: int | None,
        limit: int | None,
        most_rows: int,
    ) -> list[SplitRange]:
        planner = ByteRangePlanner(
            row_offsets=self.row_offsets,
            can_cut_anywhere=lambda file: (
                not is_foreign(self.encoding) and self.can_cut_anywhere(file.path)
            ),
            most_rows=most_rows,
        )
        return planner.plan(files, rows_per_part, limit)


def _is_blank(line: bytes) -> bool:
    return not line.removeprefix(codecs.BOM_UTF8).strip()
