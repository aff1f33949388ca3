"""Find a model of the Hub, in its cache or there."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from pipemill.pipelines.loading.adapters.merge_adapter import ADAPTER_CONFIG

from pipemill.errors import ConfigError

if TYPE_CHECKING:
    from ...config.task_entry import ModelSection


def find_on_hub(model: ModelSection) -> Path:
    """Return where the configuration of a model, or of an adapter alone, is in the Hub's cache.

    Raises ConfigError if it is neither there nor on the Hub.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    offline = constants.HF_HUB_OFFLINE
    reachable = not offline and _is_reachable(constants.ENDPOINT)
    try:
        download = partial(
            hf_hub_download,
            model.path,
            revision=model.revision,
            local_files_only=not reachable,  # else the library tries for half a minute
        )
        try:
            return Path(download("config.json"))
        except EntryNotFoundError:
            with suppress(EntryNotFoundError):
                return Path(download(ADAPTER_CONFIG))
            raise
    except RevisionNotFoundError:
        reason = f"the Hub's model has no revision {model.revision!r} (model.revision)"
    except RemoteEntryNotFoundError:
        reason = "the Hub's repository has no config.json: it is not a transformers model"
    except RepositoryNotFoundError:
        reason = "the Hub has no model of that name (for a private one, set HF_TOKEN)"
    except HFValidationError as error:
        reason = f"it is not a name on the Hub ({error})"
    except (OSError, ValueError) as error:
        reason = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} can't be reached"
        if reachable:
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    raise ConfigError(
        f"no model {model.path!r}: there is no such folder in {os.getcwd()}, it is not in the "
        f"cache ({constants.HF_HUB_CACHE}), and {reason}"
    )


def _is_reachable(url: str) -> bool:
    """Tell whether something listens at a URL; True where a proxy stands in between."""
    if getproxies():
        return True
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True
