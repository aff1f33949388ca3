"""Read an output as one dataset: its parts, or its dead letters, in the order of the input."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pipemill.actors.output.layout import DEAD_LETTERS
from pyarrow import fs

from pipemill.errors import ConfigError, did_you_mean

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

    Only parts are read, those that exist now: a run that is not finished may be looked at.

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

    ledger, _, plan = open_output(output, storage_options)
    exist = ledger.dead_letter_files() if dead_letters else ledger.parts()
    folder = f"{DEAD_LETTERS}/" if dead_letters else ""
    names = [f"{folder}{split.part}" for split in plan.splits if split.part in exist]
    schema = _read_schema(ledger, names[0]) if names else _no_rows(columns)
    if columns is not None:
        schema = _select(schema, columns, ledger.path)
    return ds.dataset(
        [ledger.store.locate(name) for name in names],
        schema=schema,
        format="parquet",
        filesystem=_to_arrow(ledger),
    )


def _read_schema(ledger: Ledger, name: str) -> pa.Schema:
    try:
        with ledger.open(name) as file:
            schema = pq.read_schema(file)
    except Exception as error:  # from the filesystem, or Parquet
        raise ConfigError(
            f"can't read {ledger.path}/{name} ({type(error).__name__}: {error}): "
            f"pipemill verify {ledger.path} checks all files"
        ) from error
    notes = {key: value for key, value in (schema.metadata or {}).items() if key != _FOOTER}
    return schema.with_metadata(notes or None)


def _no_rows(columns: Sequence[str] | None) -> pa.Schema:
    return pa.schema([(name, pa.null()) for name in columns or []])


def _select(schema: pa.Schema, columns: Sequence[str], output: str) -> pa.Schema:
    if isinstance(columns, str):
        raise ConfigError(f"columns must be a list of names, not the text {columns!r}")
    for name in columns:
        if name not in schema.names:
            hint = did_you_mean(str(name), schema.names)
            raise ConfigError(f"{output} has no column {name!r}; {hint}")
    return pa.schema([schema.field(name) for name in columns], schema.metadata)


def _to_arrow(ledger: Ledger) -> fs.FileSystem:
    if isinstance(ledger.filesystem, LocalFileSystem):
        return fs.LocalFileSystem()
    return fs.PyFileSystem(fs.FSSpecHandler(ledger.filesystem))
