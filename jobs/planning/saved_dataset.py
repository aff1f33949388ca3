"""Folders that `datasets.Dataset.save_to_disk` wrote: which files hold the rows, in what order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipemill.actors.storage.filesystem import open_filesystem
from pipemill.actors.storage.listing import InputFile, stat

from pipemill.errors import ConfigError

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def saved_files(folder: str, options: Mapping[str, Any]) -> list[InputFile] | None:
    """The data files that the folder's state.json lists, in its order; None if it has none.

    Raises ConfigError for a folder of several splits, which it names, and for one that can't be
    read right.
    """
    try:
        filesystem, inner = open_filesystem(folder, options)
    except FileNotFoundError:  # an archive that is not there, as a listing will say
        return None
    inner = inner.rstrip("/")
    splits = _json(filesystem, f"{inner}/{_SPLITS}")
    if splits is not None:
        names = [str(name) for name in splits.get("splits", [])]
        raise ConfigError(
            f"{folder} holds the splits of a dataset ({', '.join(names)}): "
            f"name one of them, such as {folder.rstrip('/')}/{(names or ['train'])[0]}"
        )
    state = _json(filesystem, f"{inner}/{_STATE}")
    if state is None or not isinstance(state.get("_data_files"), list):
        return None
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise ConfigError(
            f"{folder} keeps its rows' order in an indices file, as old versions of datasets did: "
            "load it and save it again (datasets.load_from_disk, save_to_disk)"
        )
    files = []
    for entry in state["_data_files"]:
        path = f"{folder.rstrip('/')}/{entry['filename']}"
        try:
            files.append(stat(path, options))
        except FileNotFoundError:
            raise ConfigError(f"{path} is missing, which {folder}/{_STATE} lists") from None
    if not files:
        raise ConfigError(f"no input at {folder}: its {_STATE} lists no data file")
    return files


def _json(filesystem: Any, path: str) -> dict[str, Any] | None:
    try:
        found = json.loads(filesystem.cat_file(path))
    except Exception:  # not there, or not what its name says; a listing says what is wrong
        return None
    return found if isinstance(found, dict) else None
