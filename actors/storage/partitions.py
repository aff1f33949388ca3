"""Folders that name a value, such as `lang=en/`, as Hive and Spark write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

import pyarrow as pa

from .file_names import member_of
from .input_file import Partitions

_FOLDER = re.compile(r"([^=/]+)=([^/]*)")
_NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_MARK = {b"pipemill": b"partition"}


def is_partition(folder: str) -> bool:
    """Tell whether a folder's name is a column's name and a value."""
    return _FOLDER.fullmatch(folder) is not None


def partitions_of(folders: Sequence[str]) -> Partitions:
    """Return the names and values in the names of folders; of a name twice the last one's."""
    found = [match for match in map(_FOLDER.fullmatch, folders) if match]
    return tuple({unquote(match[1]): unquote(match[2]) for match in found}.items())


def partition_fields(partitions: Sequence[Partitions], taken: Sequence[str]) -> list[pa.Field]:
    """Return the columns that the folders of all files give; none if they name different ones.

    A column of the files stays as it is in them. Values are whole numbers if all are written as
    Python writes them, so that `month=01` stays as it is; else text.
    """
    names = [name for name, _ in partitions[0]] if partitions else []
    if not names or any([name for name, _ in some] != names for some in set(partitions)):
        return []
    fields = []
    for place, name in enumerate(names):
        values = {some[place][1] for some in partitions} - {_NULL}
        whole = bool(values) and all(map(_WHOLE.fullmatch, values))
        kind = pa.int64() if whole else pa.string()
        fields.append(pa.field(name, kind, metadata=_MARK))
    return [field for field in fields if field.name not in taken]


def is_partition_field(field: pa.Field) -> bool:
    return (field.metadata or {}).get(b"pipemill") == b"partition"


def partition_values(field: pa.Field, paths: Sequence[str]) -> pa.Array:
    """Return the column's value for each path. Raises ValueError for one of another type."""
    of_folder: dict[str, int | str | None] = {}
    values = []
    for path in paths:
        folder = member_of(path).rpartition("/")[0]
        if folder not in of_folder:
            of_folder[folder] = _value(field, folder)
        values.append(of_folder[folder])
    return pa.array(values, field.type)


def _value(field: pa.Field, folder: str) -> int | str | None:
    value = dict(partitions_of(folder.split("/"))).get(field.name, _NULL)
    if value == _NULL:
        return None
    if not pa.types.is_integer(field.type):
        return value
    if not _WHOLE.fullmatch(value):
        raise ValueError(
            f"the folder {field.name}={value} names no whole number, as those did that this output "
            "was planned with"
        )
    return int(value)
