"""Below which folders and URLs a row may name its media."""

from __future__ import annotations

import os

from .job import InputSection
from .storage import absolute


def media_roots(section: InputSection) -> tuple[str, ...]:
    """Those that the job names; else the folders in which its input lies."""
    if section.media_roots is not None:
        return tuple(absolute(root) for root in section.media_roots)
    paths = section.path if isinstance(section.path, list) else [section.path]
    return tuple(dict.fromkeys(_folder(path) for path in paths if isinstance(path, str)))


def _folder(path: str) -> str:
    """Of a file the folder that holds it, of a glob the one above its first wildcard."""
    path = absolute(path)
    fixed = path[: min((path.find(c) for c in "*?[" if c in path), default=len(path))]
    if fixed == path and (path.endswith("/") or os.path.isdir(path)):
        return path
    return fixed.rpartition("/")[0] or "/"
