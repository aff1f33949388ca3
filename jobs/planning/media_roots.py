"""Below which folders and URLs a row may name its media."""

from __future__ import annotations

import json
import os

from pipemill.actors.storage.file_names import is_chain
from pipemill.actors.storage.filesystem import absolute
from pipemill.pipelines.media import MediaAccess

from pipemill.errors import ConfigError

from ..config.job import InputSection


def media_access(section: InputSection) -> MediaAccess:
    """What the rows may name. Raises ConfigError for a root that is none."""
    try:
        return MediaAccess(roots=media_roots(section), options=json.dumps(section.storage_options))
    except TypeError:
        # A credential as an object goes to no worker: media are fetched with those of the
        # environment.
        return MediaAccess(roots=media_roots(section), options="{}")
    except ValueError as error:
        raise ConfigError(f"input.media_roots: {error}") from None


def media_roots(section: InputSection) -> tuple[str, ...]:
    """Those that the job names; else the folders in which its input lies."""
    if section.media_roots is not None:
        return tuple(absolute(root) for root in section.media_roots)
    paths = section.path if isinstance(section.path, list) else [section.path]
    folders = [_folder(path) for path in paths if isinstance(path, str)]
    return tuple(dict.fromkeys(filter(None, folders)))


def _folder(path: str) -> str | None:
    """Of a file the folder that holds it, of a glob the one above its first wildcard.

    None where there is no such folder: inside archives ("zip://…::…"), or of all buckets.
    """
    path = absolute(path)
    if is_chain(path):
        return None
    if os.path.isfile(path):  # its name may look like a glob
        return os.path.dirname(path)
    scheme, mark, rest = path.rpartition("://")
    fixed = rest[: min((rest.find(c) for c in "*?[" if c in rest), default=len(rest))]
    if fixed == rest and (rest.endswith("/") or os.path.isdir(path)):
        return path
    folder = fixed.rpartition("/")[0]
    if not mark:
        return folder or "/"
    if "::" in folder:
        return None  # which no root may have
    bucket = rest if fixed == rest else ""
    return f"{scheme}://{folder or bucket}" if folder or bucket else None
