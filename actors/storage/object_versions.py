"""Tell the versions of files apart, and notice an object that changed after it was planned."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .filesystem import open_filesystem
from .input_file import InputFile

# Other stores may name one version in several ways: in a listing, and when asked for one file.
_SCHEMES = ("s3://", "s3a://")


def check_object(file: InputFile, options: Mapping[str, Any]) -> None:
    """Raise ValueError if an object on S3 has another etag than when it was planned.

    Call it after reading: one version is then read, or the change is noticed. That an object is
    gone is said by reading it.
    """
    if not file.path.startswith(_SCHEMES) or not file.version:
        return
    filesystem, path = open_filesystem(file.path, options)
    try:
        if find_version(filesystem.info(path)) == file.version:
            return
        # As the input was listed: a store may have another etag there.
        folder, _, name = path.rpartition("/")
        found = filesystem.find(folder, prefix=name, maxdepth=1, detail=True).get(path)
    except FileNotFoundError:
        return
    if found is not None and find_version(found) != file.version:
        raise ValueError(f"{file.path} has changed since it was planned: run again")


def find_version(entry: dict[str, Any]) -> str:
    """Return what changes when a listed file does: an etag or a time; "" if nothing is known."""
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created"):
        if value := entry.get(key):
            # fsspec's memory lists a number where `info` has a date.
            dated = key == "created" and isinstance(value, datetime)
            return str(value.timestamp() if dated else value).strip('"')
    return ""
