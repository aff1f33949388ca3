"""Find a model of the Hub, in its cache or there."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from pipemill.actors.storage.backoff import is_busy
from pipemill.pipelines.loading.adapters.merge_adapter import ADAPTER_CONFIG
from pipemill.pipelines.loading.model_files import find_status

from pipemill.errors import ConfigError, RunError

if TYPE_CHECKING:
    from ...config.task_entry import ModelSection


def find_on_hub(model: ModelSection) -> Path:
    """Return where the configuration of a model, or of an adapter alone, is in the Hub's cache.

    Raises the errors of `find_config`.
    """
    names = {"config.json": "a transformers model", ADAPTER_CONFIG: "a PEFT adapter"}
    return find_config(f"model {model.path!r}", str(model.path), model.revision, names)


def find_config(what: str, path: str, revision: str | None, names: Mapping[str, str]) -> Path:
    """Return where the first file of a repository that has one of these names is in the cache.

    Args:
        what: what is missing without one, for a message.
        path: the name of the repository on the Hub.
        names: what each file is the configuration of; the likeliest one comes first.

    Raises:
        ConfigError: it is neither there nor on the Hub.
        RunError: the Hub answers with an error.
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
            path,
            revision=revision,
            local_files_only=not reachable,  # else the library tries for half a minute
        )
        first, *others = names
        try:
            return Path(download(first))
        except EntryNotFoundError as error:
            if is_busy(find_status(error)):
                raise
            for other in others:
                with suppress(EntryNotFoundError):
                    return Path(download(other))
            raise
    except RevisionNotFoundError:
        reason = f"the Hub's model has no revision {revision!r} (model.revision)"
    except RemoteEntryNotFoundError:
        reason = f"the Hub's repository has no {first}: it is not {names[first]}"
    except RepositoryNotFoundError as error:
        reason = _explain_refusal(error, path)
    except HFValidationError as error:
        reason = f"it is not a name on the Hub ({error})"
    except (OSError, ValueError) as error:
        if is_busy(find_status(error)):
            raise explain_hub_error(error, path) from None
        reason = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} can't be reached"
        if reachable:
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    raise ConfigError(
        f"no {what}: there is no such folder in {os.getcwd()}, it is not in the "
        f"cache ({constants.HF_HUB_CACHE}), and {reason}"
    )


def explain_hub_error(error: BaseException, model: str) -> Exception:
    """Return the error of a model of which the Hub does not show what was asked for."""
    from huggingface_hub.errors import RepositoryNotFoundError

    if is_busy(find_status(error)):
        return RunError(
            f"the Hub answers with HTTP status {find_status(error)} for the model {model}: run "
            "again when that has passed, or set HF_HUB_OFFLINE=1 if the cache has the whole model"
        )
    why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    if isinstance(error, RepositoryNotFoundError):
        why = _explain_refusal(error, model)
    return ConfigError(
        f"can't read the model {model!r}: {why}. With HF_HUB_OFFLINE=1 the cache alone is read"
    )


def _explain_refusal(error: Exception, model: str) -> str:
    """Return why the Hub does not show a model, or says that it has none of that name."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError

    token = get_token()
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{model}"
        if token is None:
            return f"the Hub shows it only to those granted access on {page}: set HF_TOKEN"
        return f"the account of the token here has no access: ask for it on {page}"
    if token is None:
        return "the Hub has no model of that name (for a private one, set HF_TOKEN)"
    return "the Hub has no model of that name that the token here (HF_TOKEN) may read"


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
