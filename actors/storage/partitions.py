"""Read columns from the names of folders such as `lang=en/`, as Hive and Spark write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

import pyarrow as pa

from pipemill.errors import ConfigError

from .file_names import find_member, is_chain
from .input_file import Partitions

_FOLDER = re.compile(r"([^=/]+)=([^/]*)")
_NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_MARK = {b"pipemill": b"partition"}
# The folder of a row's file, in which a relative path of media begins. It is never written.
FOLDER = "_pipemill_folder"
FOLDER_FIELD = pa.field(FOLDER, pa.string(), metadata=_MARK)


def find_folder(path: str) -> str | None:
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
    partitions: Sequence[Partitions],
    columns: Sequence[str],
    types: Mapping[str, pa.DataType],
) -> list[pa.Field]:
    """Return the columns that all files' folders name; none if they name different ones.

    Columns that the files have themselves are left out. Values are whole numbers if all are written
    as Python writes them, else text: `month=01` stays as it is.

    types: those that the user declares. Raises ConfigError for a folder that names another value.
    """
    names = [name for name, _ in partitions[0]] if partitions else []
    if not names or any([name for name, _ in folders] != names for folders in set(partitions)):
        return []
    fields = []
    for index, name in enumerate(names):
        if name in columns:
            continue
        values = {folders[index][1] for folders in partitions} - {_NULL}
        are_whole = bool(values) and all(map(_WHOLE.fullmatch, values))
        field = pa.field(
            name, types.get(name, pa.int64() if are_whole else pa.string()), metadata=_MARK
        )
        try:
            _cast_values(field, sorted(values))
        except ValueError as error:
            raise ConfigError(f"input.schema.{name}: {error}") from None
        fields.append(field)
    return fields


def is_partition_field(field: pa.Field) -> bool:
    """Tell whether a column's values come from folders' names."""
    return (field.metadata or {}).get(b"pipemill") == b"partition"


def read_partition_values(field: pa.Field, paths: Sequence[str]) -> pa.Array:
    """Return a column's value for each path. Raises ValueError for a value of another type."""
    if field.name == FOLDER:
        return pa.array([find_folder(path) for path in paths], field.type)
    of_folder: dict[str, str | None] = {}
    values = []
    for path in paths:
        folder = find_member(path).rpartition("/")[0]
        if folder not in of_folder:
            value = dict(parse_partitions(folder.split("/"))).get(field.name, _NULL)
            of_folder[folder] = None if value == _NULL else value
        values.append(of_folder[folder])
    return _cast_values(field, values)


def _cast_values(field: pa.Field, values: Sequence[str | None]) -> pa.Array:
    """Return values as they are in folders' names in the type of their column."""
    texts = pa.array(values, pa.string())
    try:
        return texts.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        wrong = next((text for text in values if not _fits(text, field.type)), None)
        kind = "a whole number" if pa.types.is_integer(field.type) else f"a {field.type}"
        raise ValueError(
            f"the folder {field.name}={wrong} does not name {kind}, the type of that column"
        ) from None


def _fits(text: str | None, kind: pa.DataType) -> bool:
    try:
        pa.scalar(text, pa.string()).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True
