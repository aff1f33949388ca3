"""Recognize Delta Lake, Iceberg, Hudi and Lance, whose files also hold old rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .backoff import is_transient
from .file_names import find_member, find_suffix
from .partitions import is_partition

DELTA, HUDI, ICEBERG, LANCE = "_delta_log", ".hoodie", "metadata", "_versions"
_MARKS = {
    DELTA: "a Delta Lake table",
    HUDI: "an Apache Hudi table",
    ICEBERG: "an Apache Iceberg table",
    LANCE: "a Lance dataset",
}
_BY_NAME = re.compile(
    r"(^|/)(_delta_log(?=/)|\.hoodie(?=/)|metadata(?=/[^/]+\.metadata\.json$)"
    r"|_versions(?=/[^/]+\.manifest$))"
)
# The files that hold the rows of these tables.
_DATA = (".parquet", ".pq")
# A pattern may match files in thousands of folders.
_MOST_FOLDERS = 64


def is_table_data(name: str) -> bool:
    """Tell whether a file may hold rows of such a table, by its name."""
    return find_suffix(find_member(name)) in _DATA


def find_table_by_log(name: str) -> str | None:
    """Describe the table that a file belongs to, if the file is part of the table's log."""
    match = _BY_NAME.search(name)
    return _describe_table(name[: match.start(2)].rstrip("/"), match[2]) if match else None


def find_table_around(filesystem: Any, folders: Iterable[str]) -> str | None:
    """Describe the first table that one of the folders is, or is part of."""
    tops: dict[str, None] = {}
    for folder in folders:
        # A table's folder holds those of its partitions, or Iceberg's `data`.
        while is_partition(base := folder.rstrip("/").rpartition("/")[2]):
            folder = folder.rstrip("/").rpartition("/")[0]
        tops.setdefault(folder.rstrip("/"))
        if base == "data":
            tops.setdefault(folder.rstrip("/").rpartition("/")[0])
    for top in list(tops)[:_MOST_FOLDERS]:
        if mark := find_table_mark(filesystem, top):
            return _describe_table(top, mark)
    return None


def find_table_mark(filesystem: Any, folder: str) -> str | None:
    """Return the name in a folder that makes it a table; None if there is none."""
    return next((mark for mark in _MARKS if _is_marked(filesystem, folder, mark)), None)


def _is_marked(filesystem: Any, folder: str, mark: str) -> bool:
    path = f"{folder}/{mark}"
    try:
        if not filesystem.isdir(path):
            return False
        names = filesystem.ls(path, detail=False) if mark in (ICEBERG, LANCE) else []
    except Exception as error:  # a folder that can't be read is not a reason to stop
        if is_transient(error):
            raise
        return False
    return mark in (DELTA, HUDI) or any(
        _BY_NAME.search(f"{mark}/{name.rpartition('/')[2]}") for name in names
    )


def _describe_table(folder: str, mark: str) -> str:
    way_out = "Export"
    if mark != HUDI:
        way_out = f"Name the folder {folder} alone, without input.format; or export"
    return (
        f"{folder} is {_MARKS[mark]} (it holds {mark}): its files also hold rows that were "
        f"replaced or deleted. {way_out} its rows to Parquet with a reader of such tables, and use "
        "those files as input"
    )
