"""The folders and URLs below which a row may name its media."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipemill.actors.storage.file_names import is_chain
from pipemill.actors.storage.filesystem import absolute
from pipemill.actors.storage.input_file import InputFile
from pipemill.pipelines.media import MediaAccess

from pipemill.errors import ConfigError

if TYPE_CHECKING:
    from ..config.job import InputSection


def make_media_access(section: InputSection, files: Iterable[InputFile] = ()) -> MediaAccess:
    """Make the access to the media that rows name.

    Args:
        section: the input, as the job names it.
        files: the files with the rows. If they lie in one folder, a relative path is looked for
            there first, as of the `metadata.jsonl` of a folder of images.

    Raises:
        ConfigError: for a root that is not a folder or URL.
    """
    roots = find_media_roots(section)
    if section.media_roots is None and roots:
        inside = [folder for folder in _find_shared_folder(files) if _is_below(folder, roots)]
        roots = tuple(dict.fromkeys([*inside, *roots]))
    try:
        return MediaAccess(roots=roots, options=json.dumps(section.storage_options))
    except TypeError:
        # A credential that is an object can't be sent to workers: media are then fetched with the
        # credentials of the environment.
        return MediaAccess(roots=roots, options="{}")
    except ValueError as error:
        raise ConfigError(f"input.media_roots: {error}") from None


def find_media_roots(section: InputSection) -> tuple[str, ...]:
    """Return the roots that the job names, or else the folders of its input."""
    if section.media_roots is not None:
        return tuple(absolute(root) for root in section.media_roots)
    paths = section.path if isinstance(section.path, list) else [section.path]
    folders = [_find_folder(path) for path in paths if isinstance(path, str)]
    return tuple(dict.fromkeys(filter(None, folders)))


def _find_shared_folder(files: Iterable[InputFile]) -> list[str]:
    """Return the folder in which all files lie; nothing if there are several."""
    found: set[str] = set()
    for file in files:
        found.add("" if is_chain(file.path) else file.path.rpartition("/")[0])
        if len(found) > 1:
            return []
    return [folder for folder in found if folder]


def _is_below(folder: str, roots: tuple[str, ...]) -> bool:
    return any(f"{folder}/".startswith(f"{root.rstrip('/')}/") for root in roots)


def _find_folder(path: str) -> str | None:
    """Return the folder of a file, or the folder above the first wildcard of a glob.

    Return None if there is none: in archives ("zip://…::…"), and above all buckets.
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
        return None  # a root must not have it
    bucket = rest if fixed == rest else ""
    return f"{scheme}://{folder or bucket}" if folder or bucket else None
