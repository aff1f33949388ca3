"""Read local files that lie below given folders after every link is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable


def resolve_path(path: str, folders: Iterable[str]) -> str | None:
    """Return the path with every link followed; None if it does not lie below a folder."""
    real = os.path.realpath(path)
    below = any(_contains(os.path.realpath(folder), real) for folder in folders)
    return real if below else None


def shorten_name(name: str) -> str:
    """Return a name for a message, quoted: a wrong one may have megabytes."""
    return repr(name if len(name) <= 300 else name[:300] + "…")


def _contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def read(path: str) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: the path with every link followed.

    Raises:
        OSError: for a file that can't be read, a folder, and a pipe or a device, which may never
            end.
    """
    try:
        # To open a pipe would wait for its writer. A link was put here after the path was resolved.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {shorten_name(path)}") from None
    except OSError as error:
        raise OSError(f"can't read {shorten_name(path)}: {error.strerror}") from None
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        with os.fdopen(handle, "rb") as file:
            return file.read()
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{shorten_name(path)} is a folder, not a file")
    raise OSError(f"{shorten_name(path)} is a pipe or a device, not a file")
