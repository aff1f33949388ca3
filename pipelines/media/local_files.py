"""Local files, read only if they lie below given folders after every link is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable


def resolve_path(path: str, folders: Iterable[str]) -> str | None:
    """The path with every link followed; None if that is not below one of the folders."""
    real = os.path.realpath(path)
    below = any(_contains(os.path.realpath(folder), real) for folder in folders)
    return real if below else None


def shorten_name(name: str) -> str:
    """A name as messages have it: not the megabytes that a wrong one may be."""
    return repr(name if len(name) <= 300 else name[:300] + "…")


def _contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def read(path: str) -> bytes:
    """The bytes of a regular file, by its real path. A pipe or a device may never end: an error."""
    try:
        # Opening a pipe would wait for its writer; a link has been put here since it was looked at.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {shorten_name(path)}") from None
    except OSError as error:
        raise OSError(f"not readable ({error.strerror}): {shorten_name(path)}") from None
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        with os.fdopen(handle, "rb") as file:
            return file.read()
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"a folder, not a file: {shorten_name(path)}")
    raise OSError(f"a pipe or a device, not a file: {shorten_name(path)}")
