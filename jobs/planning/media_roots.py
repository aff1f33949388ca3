"""The folders and URLs below which a row may name its media."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from pipemill.actors.columns import is_bytes
from pipemill.actors.storage.file_names import is_chain
from pipemill.actors.storage.filesystem import decode_local_url, make_absolute
from pipemill.actors.storage.input_file import InputFile
from pipemill.actors.storage.partitions import FOLDER, find_folder
from pipemill.actors.task import MEDIA
from pipemill.pipelines.media import MediaAccess, is_below
from pipemill.pipelines.pipeline_task import PipelineTask

from pipemill.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from ..config.job import InputSection
    from .bind_task import BoundTask


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
        inside = [folder for folder in _find_shared_folder(files) if is_below(folder, roots)]
        roots = tuple(dict.fromkeys([*inside, *roots]))
    try:
        return MediaAccess(roots=roots, options=json.dumps(section.storage_options))
    except TypeError:
        # A credential that is an object can't be sent to workers: media are then fetched with the
        # credentials of the environment.
        return MediaAccess(roots=roots, options="{}")
    except ValueError as error:
        raise ConfigError(str(error)) from None


def with_folders(
    bound: BoundTask, section: InputSection, files: Iterable[InputFile], schema: pa.Schema
) -> BoundTask:
    """Let a task know the folder of each row's file, where a relative path may begin there.

    Args:
        files: the files with the rows. Those of one folder have it among the roots.
        schema: the columns of the rows.
    """
    spec, columns = bound.task.spec, bound.columns
    if section.media_roots is not None or bound.task.is_user or not isinstance(spec, PipelineTask):
        return bound
    kinds = {columns[one.name]: one.kind for one in spec.inputs if one.name in columns}
    # Those of a chat may be media, where the model sees any.
    may = (*MEDIA, "messages") if any(one.kind in MEDIA for one in spec.inputs) else MEDIA
    names = [name for name, kind in kinds.items() if kind in may]
    if all(is_bytes(schema.field(name).type) for name in names) or _find_shared_folder(files):
        return bound
    return replace(bound, columns={**columns, FOLDER: FOLDER})


def find_media_roots(section: InputSection) -> tuple[str, ...]:
    """Return the roots that the job names, or else the folders of its input."""
    if section.media_roots is not None:
        return tuple(decode_local_url(make_absolute(root)) for root in section.media_roots)
    paths = section.path if isinstance(section.path, list) else [section.path]
    folders = [_find_folder(path) for path in paths if isinstance(path, str)]
    return tuple(dict.fromkeys(filter(None, folders)))


def _find_shared_folder(files: Iterable[InputFile]) -> list[str]:
    """Return the folder in which all files lie; nothing if there are several."""
    found: set[str | None] = set()
    for file in files:
        found.add(find_folder(file.path))
        if len(found) > 1:
            return []
    return [folder for folder in found if folder]


def _find_folder(path: str) -> str | None:
    """Return the folder of a file, or the folder above the first wildcard of a glob.

    Return None if there is none: in archives ("zip://…::…"), and above all buckets.
    """
    path = decode_local_url(make_absolute(path))
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
    bucket = rest if fixed == rest else ""
    return f"{scheme}://{folder or bucket}" if folder or bucket else None
