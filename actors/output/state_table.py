"""Parquet tables in the state folder, which no reader of the output takes for parts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from ..storage.backoff import retry_with_backoff
from ..storage.store import Store
from .layout import DEAD_LETTERS

_FILE = "rows"


@dataclass(frozen=True)
class StateTable:
    """A table that is a folder with one file, as Spark writes tables.

    pyarrow, pandas and polars read the folder NAME.parquet like a file. `**/*.parquet` in DuckDB or
    polars, and dask, would take a file of that name for a part; a folder they do not match.
    An older output has a file in its place, which stays a file.

    Attributes:
        store: the output folder.
        name: of the table, relative to the output.
    """

    store: Store
    name: str

    def open(self) -> IO[bytes]:
        """Open the file of the table. Raises FileNotFoundError."""
        try:
            return self.store.open(self._file)
        except (FileNotFoundError, NotADirectoryError):
            if not self._is_old():
                raise FileNotFoundError(self.name) from None
        return self.store.open(self.name)

    def read(self) -> bytes:
        """Read the file of the table. Raises FileNotFoundError."""
        with self.open() as file:
            return file.read()

    def find(self) -> str:
        """Return the name of the table's file, relative to the output."""
        return self.name if self._is_old() else self._file

    def write(self, data: bytes) -> None:
        """Write the file of the table: all of it, or nothing."""
        self.store.write(self.find(), data)

    def remove(self) -> None:
        """Remove the table if it exists."""
        if not self.store.exists(self.name):
            return
        file = self.find()
        with suppress(FileNotFoundError):
            self.store.remove(file)
        if file != self.name:
            # A store has no empty folders, and says so in various ways.
            with suppress(Exception):
                self.store.filesystem.rmdir(self.store.locate(self.name))

    @property
    def _file(self) -> str:
        return f"{self.name}/{_FILE}"

    def _is_old(self) -> bool:
        """Return whether the table is a file."""
        path = self.store.locate(self.name)
        try:
            found = retry_with_backoff(lambda: self.store.filesystem.info(path), path)
        except FileNotFoundError:
            return False
        return found["type"] == "file"


def dead_letters(store: Store, part: str) -> StateTable:
    """Return the dead letters of the split that has this part."""
    return StateTable(store, f"{DEAD_LETTERS}/{part}")
