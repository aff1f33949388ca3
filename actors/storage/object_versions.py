"""Notice that an object on S3 was written again after it was planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .filesystem import open_filesystem
from .input_file import InputFile
from .walk_files import find_version

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
