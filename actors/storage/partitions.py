"""Read columns from the names of folders such as `lang=en/`, as Hive and Spark write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

import pyarrow as pa

from .file_names import is_chain, member_of
from .input_file import Partitions

_FOLDER = re.compile(r"([^=/]+)=([^/]*)")
_NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_MARK = {b"pipemill": b"partition"}
# The folder of a row's file, in which a relative path of media begins. It is never written.
FOLDER = "_pipemill_folder"
FOLDER_FIELD = pa.field(FOLDER, pa.string(), metadata=_MARK)


def folder_of(path: str) -> str | None:
    """Return the folder of a file; None for one in an archive."""
    return None if is_chain(path) else path.rpartition("/")[0] or None


def is_partition(folder: str) -> bool:
    """Tell whether a folder's name holds a column and its value."""
    return _FOLDER.fullmatch(folder) is not None


def parse_partitions(folders: Sequence[str]) -> Partitions:
    """Return the columns and values in folders' names; the last value of a repeated column."""
    matches = filter(None, map(_FOLDER.fullmatch, folders))
    return tuple({unquote(match[1]): unquote(match[2]) for match in matches}.items())


def infer_partition_fields(
    partitions: Sequence[Partitions], columns: Sequence[str]
) -> list[pa.Field]:
    """Return the columns that all files' folders name; none if they name different ones.

    Columns that the files have themselves are left out. Values are whole numbers if all are written
    as Python writes them, else text: `month=01` stays as it is.
    """
    names = [name for name, _ in partitions[0]] if partitions else []
    if not names or any([name for name, _ in folders] != names for folders in set(partitions)):
        return []
    fields = []
    for index, name in enumerate(names):
        values = {folders[index][1] for folders in partitions} - {_NULL}
        are_whole = bool(values) and all(map(_WHOLE.fullmatch, values))
        kind = pa.int64() if are_whole else pa.string()
        fields.append(pa.field(name, kind, metadata=_MARK))
    return [field for field in fields if field.name not in columns]


def is_partition_field(field: pa.Field) -> bool:
    """Tell whether a column's values come from folders' names."""
    return (field.metadata or {}).get(b"pipemill") == b"partition"


def read_partition_values(field: pa.Field, paths: Sequence[str]) -> pa.Array:
    """Return a column's value for each path. Raises ValueError for a value of another type."""
    if field.name == FOLDER:
        return pa.array([folder_of(path) for path in paths], field.type)
    of_folder: dict[str, int | str | None] = {}
    values = []
    for path in paths:
        folder = member_of(path).rpartition("/")[0]
        if folder not in of_folder:
            of_folder[folder] = _read_value(field, folder)
        values.append(of_folder[folder])
    return pa.array(values, field.type)


def _read_value(field: pa.Field, folder: str) -> int | str | None:
    value = dict(parse_partitions(folder.split("/"))).get(field.name, _NULL)
    if value == _NULL:
        return None
    if not pa.types.is_integer(field.type):
        return value
    if not _WHOLE.fullmatch(value):
        raise ValueError(
            f"the folder {field.name}={value} does not name a whole number, but the folders that "
            "this output was planned with did"
        )
    return int(value)
