"""The splits of a plan as columns: a job may have millions of them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import eq
from typing import overload

import numpy as np
import pyarrow as pa

from .sources.split_ranges import SplitRange
from .split import Split
from .storage.input_file import InputFile

_FILE = {"path": pa.string(), "size": pa.int64(), "version": pa.string()}
# Of the rows of a stored table.
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        *_FILE.items(),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("rows", pa.int64()),
        ("bundle", pa.list_(pa.struct(list(_FILE.items())))),
        ("counts", pa.list_(pa.int64())),
    ]
)
_NOT_COUNTED = -1
_ROWS = 2**17


class SplitTable(Sequence[Split]):
    """A sequence of splits, which are made when they are asked for.

    A split takes 28 bytes, and a file is there once for all its splits. What is chosen from a
    table, such as a slice, shares its columns.
    """

    def __init__(self) -> None:
        # The files: those of a stored plan as columns, which take a third of what objects do.
        self._paths, self._versions = pa.array([], pa.string()), pa.array([], pa.string())
        self._sizes = array("q")
        self._added: list[InputFile] = []
        self._file = array("i")  # the number of the file of each split
        self._start, self._stop, self._rows = array("q"), array("q"), array("q")
        self._bundles: dict[int, tuple[InputFile, ...]] = {}
        self._counts: dict[int, tuple[int, ...]] = {}
        self._numbers: Sequence[int] = range(0)

    def append(self, piece: SplitRange) -> None:
        """Add a split to a whole table."""
        if not self._added or self._added[-1] is not piece.file:
            self._added.append(piece.file)
        if piece.bundle:
            self._bundles[len(self._file)] = piece.bundle
        if piece.counts:
            self._counts[len(self._file)] = piece.counts
        self._file.append(len(self._sizes) + len(self._added) - 1)
        self._start.append(piece.start)
        self._stop.append(piece.stop)
        self._rows.append(_NOT_COUNTED if piece.rows is None else piece.rows)
        self._numbers = range(len(self._file))

    def files(self) -> Iterator[InputFile]:
        """Yield the files of a whole table in the order of their splits."""
        before = -1
        for number, place in enumerate(self._file):
            if number in self._bundles:
                yield from self._bundles[number]
            elif place != before:
                before = place
                yield self._find_file(place)

    def select(self, keep: Callable[[Split], bool]) -> SplitTable:
        """Return the splits for which `keep` is true."""
        return self.divide(keep)[0]

    def divide(self, test: Callable[[Split], bool]) -> tuple[SplitTable, SplitTable]:
        """Return the splits for which `test` is true, and the others."""
        passed, others = array("q"), array("q")
        for split in self:
            (passed if test(split) else others).append(split.number)
        return self._share(passed), self._share(others)

    def to_arrow(self) -> Iterator[pa.Table]:
        """Yield the rows of a whole table, one for each split, in tables of some."""
        for first in range(0, len(self), _ROWS):
            places = np.array(self._file[first : first + _ROWS])
            start, stop, rows = (
                np.array(column[first : first + _ROWS])
                for column in (self._start, self._stop, self._rows)
            )
            numbers = range(first, first + len(places))
            bundles = [self._bundles.get(number, ()) for number in numbers]
            counts = [self._counts.get(number, ()) for number in numbers]
            files = _to_struct([self._find_file(p) for p in range(places[0], places[-1] + 1)])
            columns = [
                pa.array(numbers),
                *files.take(pa.array(places - places[0])).flatten(),
                start,
                stop,
                pa.array(rows, mask=rows == _NOT_COUNTED),
                pa.ListArray.from_arrays(
                    pa.array(np.cumsum([0, *map(len, bundles)]), pa.int32()),
                    _to_struct([file for bundle in bundles for file in bundle]),
                ),
                pa.array(counts, SCHEMA.field("counts").type),
            ]
            yield pa.table(columns, schema=SCHEMA)

    @classmethod
    def from_arrow(cls, tables: Iterable[pa.Table | pa.RecordBatch]) -> SplitTable:
        """Return the table of what `to_arrow` yielded, in pieces of any size."""
        table = cls()
        paths, versions = [table._paths], [table._versions]
        for rows in tables:
            if rows.num_rows:
                path, version = table._extend(rows)
                paths.append(path)
                versions.append(version)
        table._paths, table._versions = pa.concat_arrays(paths), pa.concat_arrays(versions)
        table._numbers = range(len(table._file))
        return table

    def _extend(self, rows: pa.Table | pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        """Add the splits of some rows; return the paths and the versions of their files."""
        if isinstance(rows, pa.RecordBatch):
            rows = pa.Table.from_batches([rows])
        names = [rows[name].combine_chunks() for name in _FILE]
        # Splits of a file follow each other.
        codes = [
            (name.dictionary_encode().indices if pa.types.is_string(name.type) else name).to_numpy()
            for name in names
        ]
        is_new = np.ones(len(rows), bool)
        is_new[1:] = np.any([code[1:] != code[:-1] for code in codes], axis=0)
        paths, sizes, versions = (name.take(pa.array(np.flatnonzero(is_new))) for name in names)
        places = np.cumsum(is_new) - 1 + len(self._sizes)
        first = len(self._file)
        self._sizes.frombytes(sizes.to_numpy().tobytes())
        self._file.frombytes(places.astype(np.int32).tobytes())
        self._start.frombytes(_to_bytes(rows["start"]))
        self._stop.frombytes(_to_bytes(rows["stop"]))
        self._rows.frombytes(_to_bytes(rows["rows"].fill_null(_NOT_COUNTED)))
        bundles = rows["bundle"].combine_chunks()
        bundled = list(map(InputFile, *(v.to_pylist() for v in bundles.flatten().flatten())))
        cuts = bundles.offsets.to_numpy()
        cuts = cuts - cuts[0]
        for row in np.flatnonzero(np.diff(cuts)).tolist():
            self._bundles[first + row] = tuple(bundled[cuts[row] : cuts[row + 1]])
        # Plans of older versions have no such column.
        counts = rows["counts"].to_pylist() if "counts" in rows.column_names else []
        self._counts.update((first + row, tuple(own)) for row, own in enumerate(counts) if own)
        return paths, versions

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SplitTable):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Split]:
        place, file = -1, InputFile("", 0, "")
        for number in self._numbers:
            if self._file[number] != place:  # splits of a file follow each other
                file = self._find_file(place := self._file[number])
            yield self._make(number, file)

    @overload
    def __getitem__(self, place: int) -> Split: ...
    @overload
    def __getitem__(self, place: slice) -> SplitTable: ...
    def __getitem__(self, place: int | slice) -> Split | SplitTable:
        if isinstance(place, slice):
            return self._share(self._numbers[place])
        number = self._numbers[place]
        return self._make(number, self._find_file(self._file[number]))

    def _make(self, number: int, file: InputFile) -> Split:
        rows = self._rows[number]
        return Split(
            number,
            file.path,
            file.size,
            file.version,
            self._start[number],
            self._stop[number],
            None if rows == _NOT_COUNTED else rows,
            self._bundles.get(number, ()),
            self._counts.get(number, ()),
        )

    def _find_file(self, place: int) -> InputFile:
        stored = len(self._sizes)
        if place >= stored:
            return self._added[place - stored]
        path, version = self._paths[place].as_py(), self._versions[place].as_py()
        return InputFile(path, self._sizes[place], version)

    def _share(self, numbers: Sequence[int]) -> SplitTable:
        table = SplitTable()
        table.__dict__.update(self.__dict__, _numbers=numbers)
        return table


def _to_struct(files: list[InputFile]) -> pa.StructArray:
    # Column by column: a million files would be a million dictionaries.
    columns = [
        pa.array([getattr(file, name) for file in files], kind) for name, kind in _FILE.items()
    ]
    return pa.StructArray.from_arrays(columns, fields=[pa.field(*item) for item in _FILE.items()])


def _to_bytes(column: pa.ChunkedArray) -> bytes:
    return column.to_numpy().astype(np.int64, copy=False).tobytes()
