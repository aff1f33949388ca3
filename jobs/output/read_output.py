"""Read an output as one dataset: its parts, or its dead letters, in the order of the input."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pipemill.actors.output.part_file import from_ranges
from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.output.state_table import dead_letters as dead_letters_of
from pipemill.actors.split import Split
from pyarrow import fs

from pipemill.errors import ConfigError, name_columns

from ..config.check_arguments import list_texts
from .ledger import Ledger, open_output

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_FOOTER = b"pipemill"  # of one part: it says nothing about the others


def read(
    output: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    dead_letters: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> ds.Dataset:
    """Open the rows of an output as a dataset of Arrow, in the order of the input.

    Only parts are read, those that exist now: a run that is not finished may be looked at. Dead
    letters are those of these parts: what killed runs left of rows that have an answer, or that a
    later run will try again, is not read.

    Args:
        output: The folder or URL that a run writes to.
        columns: The columns that the dataset has; None for all.
        dead_letters: Whether to read the dead letters instead: the columns of the rows that
            failed, and `split`, `row`, `stage`, `error`, `message` and `attempts`.
        storage_options: For its filesystem.

    Returns:
        A dataset that is read when it is used, as with `.to_table()`. If there is no file to
        read, it has no rows, and the columns that were asked for are of type null.

    Raises:
        ConfigError: The folder is not an output of pipemill, a column does not exist, or the
            first file can't be read.
    """
    import pyarrow.dataset as ds  # takes pandas along

    names = None if columns is None else list_texts("columns", columns, "text")
    if twice := [name for name in names or () if (names or []).count(name) > 1]:
        raise ConfigError(f"columns names {twice[0]!r} twice: name it once")
    ledger, _, plan = open_output(output, storage_options)
    exist = ledger.parts()
    done = plan.splits.select(lambda split: split.part in exist)
    files = _find_letters(ledger, done) if dead_letters else [_File(split.part) for split in done]
    schema = _read_schema(ledger, files[0].name) if files else _infer_schema_without_rows(names)
    if names is not None:
        schema = _select(schema, names, ledger.path)

    def open_files(some: list[_File]) -> ds.Dataset:
        places = [ledger.store.locate(file.name) for file in some]
        filesystem = _to_arrow(ledger)
        return ds.dataset(places, schema=schema, format="parquet", filesystem=filesystem)

    if all(file.dead_rows is None for file in files):
        return open_files(files)
    return ds.dataset(
        [
            open_files([file])
            if file.dead_rows is None
            else _open_some_rows(ledger, file.name, file.dead_rows, schema)
            for file in files
        ]
    )


@dataclass(frozen=True)
class _File:
    """A file to read.

    Attributes:
        name: relative to the output.
        dead_rows: of dead letters: those to read, if the file has others, too.
    """

    name: str
    dead_rows: np.ndarray | None = None


def _find_letters(ledger: Ledger, done: Sequence[Split]) -> list[_File]:
    """Return the files of dead letters of these splits, in their order."""
    names = ledger.dead_letter_files()
    some = [split for split in done if split.part in names]
    footers = ledger.footers(some)
    dead = [(split, footer) for split, footer in zip(some, footers, strict=True) if footer.dead]
    found = ledger.map_parallel(lambda item: _find_file(ledger, *item), dead)
    return [file for file in found if file is not None]


def _find_file(ledger: Ledger, split: Split, footer: PartFooter) -> _File | None:
    table = dead_letters_of(ledger.store, split.part)
    try:
        with table.open() as file:
            rows = pq.read_metadata(file).num_rows
    except FileNotFoundError:
        return None
    except Exception as error:
        raise _explain_unreadable(ledger, table.name, error) from error
    return _File(table.find(), from_ranges(footer.dead_rows) if rows != footer.dead else None)


def _open_some_rows(ledger: Ledger, name: str, rows: np.ndarray, schema: pa.Schema) -> ds.Dataset:
    """Read the letters of dead rows among others, which a retry left that was killed."""
    import pyarrow.dataset as ds

    with ledger.open(name) as file:
        letters = pq.read_table(file)
    dead = pa.array(np.isin(letters["row"].to_numpy(), rows))
    return ds.dataset(letters.filter(dead).select(schema.names).cast(schema))


def _read_schema(ledger: Ledger, name: str) -> pa.Schema:
    try:
        with ledger.open(name) as file:
            schema = pq.read_schema(file)
    except Exception as error:  # from the filesystem, or Parquet
        raise _explain_unreadable(ledger, name, error) from error
    notes = {key: value for key, value in (schema.metadata or {}).items() if key != _FOOTER}
    return schema.with_metadata(notes or None)


def _explain_unreadable(ledger: Ledger, name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"can't read {ledger.path}/{name} ({type(error).__name__}: {error}): "
        f"pipemill verify {ledger.path} checks all files"
    )


def _infer_schema_without_rows(columns: Sequence[str] | None) -> pa.Schema:
    return pa.schema([(name, pa.null()) for name in columns or []])


def _select(schema: pa.Schema, columns: Sequence[str], output: str) -> pa.Schema:
    for name in columns:
        if name not in schema.names:
            hint = name_columns(name, schema.names)
            raise ConfigError(f"{output} has no column {name!r}; {hint}")
    return pa.schema([schema.field(name) for name in columns], schema.metadata)


def _to_arrow(ledger: Ledger) -> fs.FileSystem:
    if isinstance(ledger.filesystem, LocalFileSystem):
        return fs.LocalFileSystem()
    return fs.PyFileSystem(fs.FSSpecHandler(ledger.filesystem))
