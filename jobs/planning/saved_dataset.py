"""Folders that `datasets.Dataset.save_to_disk` wrote: which files hold the rows, in what order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipemill.actors.storage.filesystem import open_filesystem
from pipemill.actors.storage.input_file import InputFile
from pipemill.actors.storage.listing import stat

from pipemill.errors import ConfigError

_STATE, _DATASET_SPLITS = "state.json", "dataset_dict.json"


def list_saved_files(folder: str, options: Mapping[str, Any]) -> list[InputFile] | None:
    """Return the data files that the folder's state.json lists, in its order; None without one.

    Raises:
        ConfigError: the folder holds several dataset splits, which the message names, or it can't
            be read in the order of its rows.
    """
    try:
        filesystem, inner = open_filesystem(folder, options)
    except FileNotFoundError:  # a missing archive, which the listing will report
        return None
    inner = inner.rstrip("/")
    parts = _read_json(filesystem, f"{inner}/{_DATASET_SPLITS}")
    if parts is not None:
        names = [str(name) for name in parts.get("splits", [])]
        raise ConfigError(
            f"{folder} holds several dataset splits ({', '.join(names)}): "
            f"name one of them, such as {folder.rstrip('/')}/{(names or ['train'])[0]}"
        )
    state = _read_json(filesystem, f"{inner}/{_STATE}")
    if state is None or not isinstance(state.get("_data_files"), list):
        return None
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise ConfigError(
            f"{folder} keeps the order of its rows in an indices file, as old versions of datasets "
            "did: load it and save it again (datasets.load_from_disk, save_to_disk)"
        )
    files = []
    for entry in state["_data_files"]:
        path = f"{folder.rstrip('/')}/{entry['filename']}"
        try:
            files.append(stat(path, options))
        except FileNotFoundError:
            raise ConfigError(
                f"{path} is missing, although {folder}/{_STATE} lists it: save the dataset again"
            ) from None
    if not files:
        raise ConfigError(f"no input at {folder}: its {_STATE} lists no data file")
    return files


def _read_json(filesystem: Any, path: str) -> dict[str, Any] | None:
    try:
        content = json.loads(filesystem.cat_file(path))
    except Exception:  # missing, or not JSON; the listing reports what is wrong
        return None
    return content if isinstance(content, dict) else None
