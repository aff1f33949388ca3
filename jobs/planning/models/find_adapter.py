"""Find a PEFT adapter and its base, and merge them on this machine."""

from __future__ import annotations

import json
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipemill.pipelines.loading.adapters.merge_adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MergedAdapter,
)
from pipemill.pipelines.loading.checkpoint import describe_adapter
from pipemill.pipelines.loading.extras import how_to_install, is_installed
from pipemill.pipelines.loading.model_files import ModelFiles

from pipemill.errors import ConfigError

from ...execution.progress import waiting
from .fetch_model import fetch_model, is_remote

if TYPE_CHECKING:
    from ...config.task_entry import ModelSection


class Adapter(NamedTuple):
    """The files of an adapter, as workers find them, and their folder on this machine."""

    files: ModelFiles
    folder: Path


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter, and no model."""
    # Not `Path.is_file`, which raises an exception for a folder that can't be read.
    return isfile(folder / ADAPTER_CONFIG) and not isfile(folder / "config.json")


def read_base(folder: Path, name: str) -> str:
    """Return the base model that an adapter names. Raise ConfigError if it names none."""
    if not is_installed("peft"):
        raise ConfigError(
            f"{name} is not a model: {describe_adapter(folder)}. Or let pipemill merge them: on "
            f"every machine of the cluster, {how_to_install(['peft'])}"
        )
    try:
        base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        found = base.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"can't read {folder / ADAPTER_CONFIG}: {error}") from None
    if not found:
        raise ConfigError(
            f"{name} is a PEFT adapter, and its {ADAPTER_CONFIG} names no base model: name the "
            "base in model.path, and the adapter in model.adapter"
        )
    return str(found)


def find_adapter(model: ModelSection, name: str, revision: str | None = None) -> Adapter:
    """Return an adapter, which is in a folder, at a URL or on the Hub. Raises ConfigError.

    Args:
        model: how the store of a URL is read.
        name: of the adapter.
        revision: of a name on the Hub.
    """
    folder = Path(name).expanduser()
    if is_remote(name):
        remote = fetch_model(model.model_copy(update={"path": name}))
        folder = remote.copy
        files = ModelFiles(str(folder), root=str(folder), remote=remote)
    elif folder.is_dir():
        files = ModelFiles(str(folder.resolve()))
    else:
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ConfigError(f"no adapter at {name} (model.adapter): there is no such folder")
        try:
            folder = ModelFiles(name, revision).download()
        except Exception as error:  # of huggingface_hub, of many classes
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ConfigError(
                f"no adapter {name!r} (model.adapter): there is no such folder, and the Hub says: "
                f"{type(error).__name__}: {reason}"
            ) from None
        files = ModelFiles(
            name, folder.name
        )  # …/snapshots/COMMIT; other machines have no such folder
    for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / file).is_file():
            raise ConfigError(f"{name} (model.adapter) is not a PEFT adapter: it has no {file}")
    return Adapter(files, folder)


def require_peft(name: str) -> None:
    """Raise ConfigError if peft is not installed."""
    if not is_installed("peft"):
        raise ConfigError(
            f"{name} is a PEFT adapter, which needs peft: on every machine of the cluster, "
            f"{how_to_install(['peft'])}"
        )


def merge(merged: MergedAdapter, name: str, base: str) -> None:
    """Merge an adapter into its base, unless that was done before. Raises ConfigError."""
    if merged.copy.is_dir():
        return
    with waiting(f"merging the adapter {name} into {base}"):
        reason = merged.fetch_beside()
    if reason is not None:
        raise ConfigError(f"can't merge the adapter {name} into its base {base}: {reason}")
