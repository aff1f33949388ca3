"""The splits of a plan as columns: a job may have millions of them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from operator import eq
from typing import Any, overload

import numpy as np
import pyarrow as pa

from .sources.split_ranges import SplitRange
from .split import Split
from .storage.input_file import InputFile

_FILE = {"path": pa.string(), "size": pa.int64(), "version": pa.string()}
_COLUMNS = pa.schema(
    [
        ("number", pa.int64()),
        *_FILE.items(),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("rows", pa.int64()),
        ("bundle", pa.list_(pa.struct(list(_FILE.items())))),
    ]
)
_NOT_COUNTED = -1


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
        self._numbers: Sequence[int] = range(0)

    def append(self, piece: SplitRange) -> None:
        """Add a split to a whole table."""
        if not self._added or self._added[-1] is not piece.file:
            self._added.append(piece.file)
        if piece.bundle:
            self._bundles[len(self._file)] = piece.bundle
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

    def to_arrow(self) -> pa.Table:
        """Return a whole table with a row for each split."""
        stored = (self._paths, np.frombuffer(self._sizes, np.int64), self._versions)
        every = pa.chunked_array([_zip_columns(*stored), _to_struct(self._added)])
        files = every.combine_chunks().take(pa.array(np.frombuffer(self._file, np.int32)))
        start, stop, rows = (
            np.frombuffer(column, np.int64) for column in (self._start, self._stop, self._rows)
        )
        bundles = [self._bundles.get(number, ()) for number in self._numbers]
        offsets = pa.array(np.cumsum([0, *map(len, bundles)]), pa.int32())
        bundled = _to_struct([file for bundle in bundles for file in bundle])
        columns = [
            np.arange(len(self), dtype=np.int64),
            *files.flatten(),
            start,
            stop,
            pa.array(rows, mask=rows == _NOT_COUNTED),
            pa.ListArray.from_arrays(offsets, bundled),
        ]
        return pa.table(columns, schema=_COLUMNS)

    @classmethod
    def from_arrow(cls, rows: pa.Table) -> SplitTable:
        """Return the table of what `to_arrow` returned."""
        table = cls()
        # Splits of a file follow each other. Each file is made once: there may be millions.
        names = [rows[name].combine_chunks() for name in _FILE]
        codes = [
            (name.dictionary_encode().indices if pa.types.is_string(name.type) else name).to_numpy()
            for name in names
        ]
        is_new = np.ones(len(rows), bool)
        if len(rows):
            is_new[1:] = np.any([code[1:] != code[:-1] for code in codes], axis=0)
        firsts = pa.array(np.flatnonzero(is_new))
        table._paths, sizes, table._versions = (name.take(firsts) for name in names)
        table._sizes.frombytes(sizes.to_numpy().tobytes())
        table._file.frombytes((np.cumsum(is_new) - 1).astype(np.int32).tobytes())
        table._start.frombytes(_to_bytes(rows["start"]))
        table._stop.frombytes(_to_bytes(rows["stop"]))
        table._rows.frombytes(_to_bytes(rows["rows"].fill_null(_NOT_COUNTED)))
        bundles = rows["bundle"].combine_chunks()
        bundled = list(map(InputFile, *(v.to_pylist() for v in bundles.flatten().flatten())))
        cuts = bundles.offsets.to_numpy()
        table._bundles = {
            number: tuple(bundled[cuts[number] : cuts[number + 1]])
            for number in np.flatnonzero(np.diff(cuts)).tolist()
        }
        table._numbers = range(len(rows))
        return table

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SplitTable):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Split]:
        return map(self._make, self._numbers)

    @overload
    def __getitem__(self, place: int) -> Split: ...
    @overload
    def __getitem__(self, place: slice) -> SplitTable: ...
    def __getitem__(self, place: int | slice) -> Split | SplitTable:
        if isinstance(place, slice):
            return self._share(self._numbers[place])
        return self._make(self._numbers[place])

    def _make(self, number: int) -> Split:
        file, rows = self._find_file(self._file[number]), self._rows[number]
        return Split(
            number,
            file.path,
            file.size,
            file.version,
            self._start[number],
            self._stop[number],
            None if rows == _NOT_COUNTED else rows,
            self._bundles.get(number, ()),
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
    return _zip_columns(*columns)


def _zip_columns(*columns: Any) -> pa.StructArray:
    fields = [pa.field(*item) for item in _FILE.items()]
    return pa.StructArray.from_arrays([pa.array(column) for column in columns], fields=fields)


def _to_bytes(column: pa.ChunkedArray) -> bytes:
    return column.to_numpy().astype(np.int64, copy=False).tobytes()
