"""Parquet tables in the state folder: a file, or a folder that no reader takes for parts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal

from ..storage.backoff import retry_with_backoff
from ..storage.store import Store
from .layout import DEAD_LETTERS

_FILE = "rows"

TableForm = Literal["file", "folder"]


@dataclass(frozen=True)
class StateTable:
    """A table that is a file, or a folder with one file, as Spark writes tables.

    pyarrow, pandas and polars read the folder NAME.parquet like a file. `**/*.parquet` in DuckDB or
    polars, and dask, would take a file of that name for a part; a folder they do not match.
    Outputs of other versions have the other form, and keep it.

    Attributes:
        store: the output folder.
        name: of the table, relative to the output.
        form: of a new table.
    """

    store: Store
    name: str
    form: TableForm = "folder"

    def open(self) -> IO[bytes]:
        """Open the file of the table. Raises FileNotFoundError."""
        form = self._find_form()
        if form is None:
            raise FileNotFoundError(self.name)
        return self.store.open(self._name_file(form))

    def read(self) -> bytes:
        """Read the file of the table. Raises FileNotFoundError."""
        with self.open() as file:
            return file.read()

    def find(self) -> str:
        """Return the name of the table's file, relative to the output."""
        return self._name_file(self._find_form() or self.form)

    def write(self, data: bytes) -> None:
        """Write the file of the table: all of it, or nothing."""
        self.store.write(self.find(), data)

    def remove(self) -> None:
        """Remove the table if it exists."""
        form = self._find_form()
        if form is None:
            return
        with suppress(FileNotFoundError):
            self.store.remove(self._name_file(form))
        if form == "folder":
            # A store has no empty folders, and says so in various ways.
            with suppress(Exception):
                self.store.filesystem.rmdir(self.store.locate(self.name))

    def _name_file(self, form: TableForm) -> str:
        return self.name if form == "file" else f"{self.name}/{_FILE}"

    def _find_form(self) -> TableForm | None:
        path = self.store.locate(self.name)
        try:
            found = retry_with_backoff(lambda: self.store.filesystem.info(path), path)
        except FileNotFoundError:
            return None
        return "file" if found["type"] == "file" else "folder"


def dead_letters(store: Store, part: str) -> StateTable:
    """Return the dead letters of the split that has this part: a file that any tool opens."""
    return StateTable(store, f"{DEAD_LETTERS}/{part}", "file")
