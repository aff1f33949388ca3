"""Fetch a model from an object store to this machine, or say why that can't be done."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from pipemill.actors.storage.remote_folder import RemoteFolder, list_remote_folder
from pipemill.actors.storage.storage_options import explain_storage_error

from pipemill.errors import ConfigError, RunError, StoreError

from ...execution.progress import waiting

if TYPE_CHECKING:
    from ...config.task_entry import ModelSection

_ON_HUB = re.compile(r"hf://|https?://(huggingface|hf)\.co/")
# One of these is in the folder of a model.
_MARKS = {"config.json", "modules.json", "adapter_config.json"}


def is_remote(path: str) -> bool:
    """Return whether a model's path is a URL, and not a folder or a name on the Hub."""
    return "://" in path


def fetch_model(model: ModelSection) -> RemoteFolder:
    """Fetch a model to this machine's cache, and return what workers fetch it by.

    Raises:
        ConfigError: there is no model at the URL, or it can't be read.
        RunError: the store does not answer.
    """
    if on_hub := _ON_HUB.match(model.path):
        name = "/".join(model.path[on_hub.end() :].split("/")[:2])
        raise ConfigError(
            f"model.path {model.path}: name a model on the Hugging Face Hub by its name alone, "
            f"{name or 'org/name'}, and its branch or commit in model.revision"
        )
    try:
        json.dumps(model.storage_options)
    except TypeError as error:
        raise ConfigError(
            f"model.storage_options can't be sent to workers ({error}): use texts and numbers"
        ) from None
    try:
        remote = list_remote_folder(model.path, model.storage_options)
        if not _MARKS & {file.name for file in remote.files}:
            raise ConfigError(
                f"{model.path} is not a model: there is no config.json among the "
                f"{len(remote.files)} files below it (save it with save_pretrained, and copy the "
                "whole folder)"
            )
        if not remote.copy.is_dir():
            with waiting(f"fetching {model.path} ({remote.size / 2**20:,.1f} MiB)"):
                remote.fetch()
        return remote
    except ConfigError:
        raise
    except StoreError as error:
        raise RunError(f"{error}; run again when that has passed") from error
    except FileNotFoundError:
        raise ConfigError(f"no model at {model.path}: there is no file below that URL") from None
    except Exception as error:  # filesystems raise exceptions of many classes
        raise ConfigError(_describe(model, error)) from error


def _describe(model: ModelSection, error: Exception) -> str:
    why = explain_storage_error(error, str(model.path), model.storage_options)
    reason = f"can't read the model {model.path}: {why}"
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        reason += (
            "; give credentials in the environment (such as AWS_ACCESS_KEY_ID) or in "
            "model.storage_options"
        )
    return reason
