"""Recognize objects that hold rows, without importing the libraries that they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipemill.errors import ConfigError

from .dataset_splits import DatasetSplits
from .frames import (
    ArrowDatasetRows,
    BatchReaderRows,
    FrameRows,
    collect_polars,
    convert_array,
    convert_arrow,
    convert_pandas,
    convert_polars,
)
from .held_rows import HeldRows, TableRows
from .hf_datasets import HubDatasetRows, IterableDatasetRows
from .lake_tables import hold_delta, hold_iceberg
from .python_rows import RowIterator, RowList
from .ray_dataset import RayDatasetRows

# By the module and name of their class, or of one that it inherits from.
_KINDS: dict[tuple[str, str], Callable[[Any], TableRows]] = {
    ("pandas", "DataFrame"): lambda v: FrameRows("a pandas.DataFrame", convert_pandas(v)),
    ("pandas", "Series"): lambda v: FrameRows(
        "a pandas.Series", convert_pandas(v.to_frame("text" if v.name is None else v.name))
    ),
    ("polars", "DataFrame"): lambda v: FrameRows("a polars.DataFrame", convert_polars(v)),
    ("polars", "Series"): lambda v: FrameRows(
        "a polars.Series", convert_polars(v.to_frame(v.name or "text"))
    ),
    ("polars", "LazyFrame"): lambda v: FrameRows("a polars.LazyFrame", collect_polars(v)),
    ("pyarrow", "Table"): lambda v: FrameRows("a pyarrow.Table", v),
    ("pyarrow", "RecordBatch"): lambda v: FrameRows("a pyarrow.RecordBatch", convert_arrow(v)),
    ("pyarrow", "RecordBatchReader"): BatchReaderRows,
    ("pyarrow", "Scanner"): lambda v: BatchReaderRows(v.to_reader()),
    ("pyarrow", "Array"): lambda v: FrameRows("a pyarrow.Array", convert_array(v)),
    ("pyarrow", "ChunkedArray"): lambda v: FrameRows("a pyarrow.ChunkedArray", convert_array(v)),
    ("pyarrow", "Dataset"): lambda v: ArrowDatasetRows("a pyarrow.dataset.Dataset", v),
    ("datasets", "Dataset"): HubDatasetRows,
    ("datasets", "IterableDataset"): IterableDatasetRows,
    ("ray", "Dataset"): RayDatasetRows,
    ("deltalake", "DeltaTable"): hold_delta,
    ("pyiceberg", "Table"): hold_iceberg,
}
_EXAMPLES = {
    "pandas": "DataFrame",
    "polars": "DataFrame",
    "datasets": "Dataset",
    "ray": "data.Dataset",
}
# A dict of these holds columns, and not dataset splits.
_COLUMNS = {
    ("pandas", "Series"), ("polars", "Series"), ("pyarrow", "Array"), ("pyarrow", "ChunkedArray"),
}  # fmt: skip
# Of these libraries only the classes above are rows.
_LIBRARIES = set(_EXAMPLES)
_SECTION_KEYS = frozenset(
    {"path", "format", "columns", "limit", "schema", "encoding", "delimiter", "quotes"}
)


def holds_rows(value: object) -> bool:
    """Return whether a value is rows itself, and not paths, a section of a config or nonsense."""
    if isinstance(value, HeldRows) or _is_object_with_rows(value):
        return True
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], Mapping)
    return _is_dict_of_splits(value)


def hold_rows(value: object) -> HeldRows:
    """Return the rows of a value that `holds_rows`. Raises ConfigError if they can't be read."""
    if isinstance(value, HeldRows):
        return value
    if isinstance(value, Mapping):
        kind = (
            f"a {type(value).__name__}" if type(value) is not dict else "a dict of dataset splits"
        )
        return DatasetSplits(kind, {str(name): _hold_table(rows) for name, rows in value.items()})
    return _hold_table(value)


def _hold_table(value: object) -> TableRows:
    for known in list_classes(value):
        if known in _KINDS:
            return _KINDS[known](value)
    if isinstance(value, list):
        return RowList(value)
    if isinstance(value, Iterator):
        return RowIterator(value)
    kind = type(value).__name__
    package = type(value).__module__.partition(".")[0]
    if package in _LIBRARIES:
        raise ConfigError(f"a {kind} is not a {package}.{_EXAMPLES[package]}")
    return FrameRows(f"a {kind}", convert_arrow(value))


def _is_object_with_rows(value: object) -> bool:
    return (
        isinstance(value, Iterator)
        or any(package in _LIBRARIES for package, _ in list_classes(value))
        or any(known in _KINDS for known in list_classes(value))
        or (hasattr(value, "__arrow_c_stream__") and not isinstance(value, type))
    ) and not isinstance(value, Mapping)


def _is_dict_of_splits(value: object) -> bool:
    if not isinstance(value, Mapping) or not value or _SECTION_KEYS & set(value):
        return False
    if any(_COLUMNS.intersection(list_classes(rows)) for rows in value.values()):
        return False
    return all(
        _is_object_with_rows(rows)
        or (isinstance(rows, list) and all(isinstance(row, Mapping) for row in rows[:1]))
        for rows in value.values()
    ) and any(_is_object_with_rows(rows) or rows for rows in value.values())


def list_classes(value: object) -> list[tuple[str, str]]:
    """Return the classes of an object, each with the package that it is from."""
    return [(cls.__module__.partition(".")[0], cls.__name__) for cls in type(value).__mro__]
