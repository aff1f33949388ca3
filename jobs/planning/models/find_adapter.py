"""Find a PEFT adapter and its base, and merge them on this machine."""

from __future__ import annotations

import json
from os.path import isfile
from pathlib import Path
from typing import NamedTuple

from pipemill.pipelines.loading.adapters.merge_adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MergedAdapter,
)
from pipemill.pipelines.loading.checkpoint import describe_adapter
from pipemill.pipelines.loading.extras import advise_install, is_installed
from pipemill.pipelines.loading.model_files import ModelFiles

from pipemill.errors import ConfigError

from ...execution.progress import waiting
from .find_on_hub import explain_hub_error, find_config


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
            f"every machine of the cluster, {advise_install(['peft'])}"
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


def find_adapter(name: str, revision: str | None = None) -> Adapter:
    """Return an adapter, which is in a folder or on the Hub. Raises ConfigError."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return check_adapter(name, Adapter(ModelFiles(str(folder.resolve())), folder))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(f"no adapter at {name} (model.adapter): there is no such folder")
    find_config(
        f"adapter {name!r} (model.adapter)", name, revision, {ADAPTER_CONFIG: "a PEFT adapter"}
    )
    try:
        folder = ModelFiles(name, revision).download()
    except Exception as error:  # of huggingface_hub, of many classes
        raise explain_hub_error(error, name) from None
    # …/snapshots/COMMIT, which another machine does not have.
    return check_adapter(name, Adapter(ModelFiles(name, folder.name), folder))


def check_adapter(name: str, adapter: Adapter) -> Adapter:
    """Return an adapter whose files are there. Raises ConfigError."""
    for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (adapter.folder / file).is_file():
            raise ConfigError(f"{name} (model.adapter) is not a PEFT adapter: it has no {file}")
    return adapter


def require_peft(name: str) -> None:
    """Raise ConfigError if peft is not installed."""
    if not is_installed("peft"):
        raise ConfigError(
            f"{name} is a PEFT adapter, which needs peft: on every machine of the cluster, "
            f"{advise_install(['peft'])}"
        )


def merge(merged: MergedAdapter, name: str, base: str) -> None:
    """Merge an adapter into its base, unless that was done before. Raises ConfigError."""
    if merged.copy.is_dir():
        return
    with waiting(f"merging the adapter {name} into {base}"):
        reason = merged.fetch_beside()
    if reason is not None:
        raise ConfigError(f"can't merge the adapter {name} into its base {base}: {reason}")
