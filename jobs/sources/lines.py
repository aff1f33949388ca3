"""Files of lines, plain or compressed, and byte ranges of them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileOpener

from ..errors import ConfigError
from ..formats import compression_of
from ..listing import InputFile
from ..storage import open_filesystem
from .ranges import Piece, counted_ranges, even_ranges, rows_per_split

SAMPLED_FILES, SAMPLED_ROWS = 16, 2000
# A smaller file that can't be cut just anywhere is one split; a larger one is read to find where.
LARGE = 8 * 2**20

# The first byte of each row of a file, and the one behind its last.
Places = Iterable[tuple[int, int]]


@dataclass
class LineFiles:
    """blank: whether a line with nothing on it is a row."""

    options: dict[str, Any]
    blank: bool

    def open(self, path: str) -> IO[bytes]:
        """The bytes of a file, decompressed."""
        filesystem, inner = open_filesystem(path, self.options)
        compression = compression_of(path)
        if compression == "zstd":
            # Arrow's reader: unlike fsspec's it says when the file ends too early.
            raw = pa.PythonFile(filesystem.open(inner, "rb"), mode="r")
            stream = pa.CompressedInputStream(raw, "zstd")
        else:
            stream = filesystem.open(inner, "rb", compression=compression)
        # Remote files read lines slowly by themselves, and Arrow's not at all.
        lines = isinstance(stream, LocalFileOpener | gzip.GzipFile)
        return stream if lines else io.BufferedReader(stream, 2**20)

    def rows(self, file: InputFile) -> Iterator[tuple[int, bytes]]:
        """Every row of a file, with the place where it starts. Raises ConfigError."""
        try:
            with self.open(file.path) as stream:
                place = 0
                for line in stream:
                    if self.blank or line.strip():
                        yield place, line
                    place += len(line)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"can't read {file.path}: {error}") from None

    def places(self, file: InputFile) -> Places:
        return ((place, place + len(line)) for place, line in self.rows(file))

    def between(self, path: str, start: int, stop: int) -> Iterator[bytes]:
        """Rows that start within [start, stop); a stop of -1 is the end.

        The line that a range begins in the middle of belongs to the range before it.
        """
        with self.open(path) as stream:
            place = 0
            if start > 0:
                skip(stream, start - 1)
                place = start - 1 + len(stream.readline())
            while stop < 0 or place < stop:
                line = stream.readline()
                if not line:
                    return
                if self.blank or line.strip():
                    yield line
                place += len(line)

    def cut(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> list[Piece]:
        return cut_by_reading(files, rows_per_part, limit, self.places, anywhere=True)


def cut_by_reading(
    files: list[InputFile],
    rows_per_part: int | None,
    limit: int | None,
    places: Callable[[InputFile], Places],
    *,
    anywhere: bool = False,
    large: int | None = None,
    most_bytes: int | None = None,
    empty: bool = False,
) -> list[Piece]:
    """Byte ranges of files whose rows only reading tells, read no further than is needed.

    anywhere: whether a range of a plain file may start and end in the middle of a row.
    large: from how many bytes on a file is read to find where to cut it, where it must be.
    most_bytes: what no range of several rows is longer than, where a file is read.
    empty: whether a file of 0 bytes is a piece, too: it is none of its format.
    """
    width = _width(files, places)
    step = rows_per_part or rows_per_split(sum(file.size for file in files) / width, width)
    most_bytes = None if rows_per_part else most_bytes
    left = limit
    pieces: list[Piece] = []
    for file in files:
        # A web server may not tell how long a file is.
        unknown = (
            not file.size and "://" in file.path and next(iter(places(file)), None) is not None
        )
        whole = compression_of(file.path) or not anywhere or unknown
        if rows_per_part or limit is not None or (whole and file.size > (large or LARGE)):
            found = counted_ranges(file, places(file), step, left, most_bytes)
            left = None if left is None else left - sum(piece.rows or 0 for piece in found)
        elif whole:
            found = [Piece(file, 0, -1, None)] if file.size or unknown or empty else []
        else:
            cuts = even_ranges(file.size, max(int(step * width), 1))
            found = [Piece(file, start, stop, None) for start, stop in cuts]
        pieces += found
    return pieces


def _width(files: list[InputFile], places: Callable[[InputFile], Places]) -> float:
    """Bytes of a row, by the first rows of the first file that has any."""
    for file in spread(files, SAMPLED_FILES):
        widths = [stop - start for start, stop in islice(places(file), SAMPLED_ROWS)]
        if widths:
            return max(sum(widths) / len(widths), 1)
    return 1


def skip(stream: IO[bytes], count: int) -> None:
    if stream.seekable():
        stream.seek(count)
        return
    while count > 0 and (some := stream.read(min(count, 2**20))):
        count -= len(some)


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
