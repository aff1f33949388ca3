"""Folders that `datasets.Dataset.save_to_disk` wrote: which files hold the rows, in what order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipemill.actors.storage.backoff import retry_on_driver
from pipemill.actors.storage.filesystem import open_filesystem
from pipemill.actors.storage.input_file import InputFile
from pipemill.actors.storage.listing import stat

from pipemill.errors import ConfigError, RunError

STATE, _DATASET_SPLITS, _INFO = "state.json", "dataset_dict.json", "dataset_info.json"


def list_saved_files(folder: str, options: Mapping[str, Any]) -> list[InputFile] | None:
    """Return the data files that the folder's state.json lists, in its order; None without one.

    Raises:
        ConfigError: the folder holds several dataset splits, which the message names, or it can't
            be read in the order of its rows.
    """
    try:
        filesystem, inner = retry_on_driver(lambda: open_filesystem(folder, options), folder)
    except FileNotFoundError:  # a missing archive, which the listing will report
        return None
    inner = inner.rstrip("/")
    parts = _read_json(filesystem, f"{inner}/{_DATASET_SPLITS}")
    if parts is not None:
        listed = parts.get("splits")
        names = [str(name) for name in listed] if isinstance(listed, list) else []
        raise ConfigError(
            f"{folder} holds several dataset splits ({', '.join(names) or _DATASET_SPLITS}): "
            f"name one of them, such as {folder.rstrip('/')}/{(names or ['train'])[0]}"
        )
    state = _read_json(filesystem, f"{inner}/{STATE}")
    entries = state.get("_data_files") if state is not None else None
    if state is None or not isinstance(entries, list) or not all(map(_is_entry, entries)):
        if all(_is_file(filesystem, f"{inner}/{name}") for name in (STATE, _INFO)):
            raise ConfigError(
                f"{folder}/{STATE} is damaged, which lists the files with the rows in their "
                f"order: save the dataset again, or name its files ({folder.rstrip('/')}/*.arrow)"
            )
        return None
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise ConfigError(
            f"{folder} keeps the order of its rows in an indices file, as old versions of datasets "
            "did: load it and save it again (datasets.load_from_disk, save_to_disk)"
        )
    files = []
    for entry in entries:
        path = f"{folder.rstrip('/')}/{entry['filename']}"
        try:
            files.append(stat(path, options))
        except FileNotFoundError:
            raise ConfigError(
                f"{path} is missing, although {folder}/{STATE} lists it: save the dataset again"
            ) from None
    if not files:
        raise ConfigError(f"no input at {folder}: its {STATE} lists no data file")
    return files


def _is_file(filesystem: Any, path: str) -> bool:
    try:
        return bool(filesystem.isfile(path))
    except Exception:  # the path is none of the filesystem's; the listing reports that
        return False


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("filename"), str)


def _read_json(filesystem: Any, path: str) -> dict[str, Any] | None:
    try:
        content = json.loads(retry_on_driver(lambda: filesystem.cat_file(path), path))
    except RunError:
        raise
    except Exception:  # missing, or not JSON; the listing reports what is wrong
        return None
    return content if isinstance(content, dict) else None
