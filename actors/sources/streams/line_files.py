"""Files of lines, plain or compressed, and byte ranges of them."""

from __future__ import annotations

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
from ...storage.file_names import compression_of
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
    foreign_encoding,
    is_foreign,
)
from .read_bytes import read_up_to, skip_bytes
from .zstd import ZstdStream

_BUFFER = 2**20


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
                head = read_up_to(lines, HEAD) if self.documents else b""
                document = self._is_document(head)
                lines = RejoinedStream(head, lines)
            return io.BufferedReader(DocumentStream(lines) if document else lines, _BUFFER)
        except BaseException:
            stream.close()
            raise

    def _head(self, path: str, stream: IO[bytes], plain: bool, start: int) -> tuple[bytes, bool]:
        """The first bytes of a file, and whether the stream is then where it was."""
        if not plain:
            return read_up_to(stream, HEAD), False
        filesystem, inner = open_filesystem(path, self.options)
        if start and not isinstance(filesystem, LocalFileSystem):
            # One small request; what the stream itself would fetch ahead is wasted.
            return filesystem.cat_file(inner, start=0, end=HEAD), True
        head = read_up_to(stream, HEAD)
        try:
            stream.seek(0)
        except ValueError:  # a web server that sends a file from its start only
            return head, False
        return head, True

    def _is_document(self, head: bytes) -> bool:
        return self.documents and is_document(head, len(head) < HEAD)

    def can_cut_anywhere(self, path: str) -> bool:
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

    def row_offsets(self, file: InputFile) -> RowOffsets:
        """Return the first byte of each row and the byte after its last."""
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
                number = skip_bytes(stream, start - 1)
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

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[SplitRange]:
        planner = ByteRangePlanner(
            row_offsets=self.row_offsets,
            can_cut_anywhere=lambda file: (
                not is_foreign(self.encoding) and self.can_cut_anywhere(file.path)
            ),
        )
        return planner.plan(files, rows_per_part, limit)
