"""Objects of the `datasets` library, which is not imported before their rows are read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa
from pipemill.actors.sources.schemas.file_schemas import cast_rows, simplify_schema

from pipemill.errors import ConfigError

from .cell_values import make_table, to_storable
from .held_rows import GROUP_ROWS, TableRows

if TYPE_CHECKING:
    import datasets

_ROWS_WITH_FILES = 50


class HubDatasetRows(TableRows):
    """A `datasets.Dataset`. The library's fingerprint is its identity."""

    name = "a datasets.Dataset"

    def __init__(self, dataset: datasets.Dataset) -> None:
        if getattr(dataset, "_format_type", None) == "custom":
            raise ConfigError(
                "the Dataset has a transform (set_transform, with_transform), which computes its "
                "rows again each time they are read: apply it once with dataset.map(…), or remove "
                "it with dataset.with_format(None)"
            )
        self._dataset = dataset

    @property
    def identity(self) -> str:
        return self._dataset._fingerprint

    @property
    def count(self) -> int:
        return len(self._dataset)

    def tables(self) -> Iterator[pa.Table]:
        return _embed_files(self._dataset, self._dataset.features)


class IterableDatasetRows(TableRows):
    """A `datasets.IterableDataset`, which may give other rows each time."""

    name = "a datasets.IterableDataset"
    is_stream = True

    def __init__(self, dataset: datasets.IterableDataset) -> None:
        self._dataset = dataset

    def head(self, rows: int) -> IterableDatasetRows:
        return IterableDatasetRows(self._dataset.take(rows))

    @property
    def identity(self) -> str:
        return "IterableDataset"

    def tables(self) -> Iterator[pa.Table]:
        if self._dataset.features is not None:
            yield from _embed_files(self._dataset, self._dataset.features)
            return
        for rows in _iterate_tables(self._dataset, GROUP_ROWS):
            yield to_storable(rows, "the IterableDataset")


def _iterate_tables(
    dataset: datasets.Dataset | datasets.IterableDataset, rows: int
) -> Iterator[pa.Table]:
    """Yield the rows in order, in tables of so many, with files as they are.

    Where `datasets` makes tables of rows in Python, as after a `map`, each row has the types of its
    own values, and only rows of equal types could be joined: not a null and a number. These are
    joined here, which is as fast.
    """
    arrow = dataset.with_format("arrow")
    source = getattr(dataset, "_ex_iterable", None)  # of a stream
    if source is None or getattr(source, "iter_arrow", None) is not None:
        yield from arrow.iter(rows)
        return
    singles, first = iter(arrow), 0
    while group := [one.to_pylist()[0] for one in islice(singles, rows)]:
        yield make_table(group, first, "the IterableDataset")
        first += len(group)


def _embed_files(
    dataset: datasets.Dataset | datasets.IterableDataset, features: datasets.Features
) -> Iterator[pa.Table]:
    """Yield the rows in order; the files that they refer to become bytes, never decoded."""
    from datasets.features.features import require_storage_embed
    from datasets.table import embed_table_storage, table_cast

    has_files = any(require_storage_embed(feature) for feature in features.values())
    notes = features.arrow_schema.metadata
    schema, first = simplify_schema(features.arrow_schema).with_metadata(notes), 0
    for rows in _iterate_tables(dataset, _ROWS_WITH_FILES if has_files else GROUP_ROWS):
        table = table_cast(rows, features.arrow_schema)
        if has_files:
            try:
                table = embed_table_storage(table)
            except Exception as error:  # the files may lie on any filesystem
                raise ConfigError(
                    f"can't read a file that rows {first} to {first + len(rows)} of the dataset "
                    f"refer to: {type(error).__name__}: {error}"
                ) from error
        yield cast_rows(table, schema)
        first += len(rows)
    if not first:
        yield schema.empty_table()
