"""Retry storage calls with exponential backoff."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from pipemill.errors import ConfigError, RunError, StoreError

# Added to the retries of a store's client. Together about a minute: most servers are back by then.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# The driver waits only this often: its user is watching, and may have mistyped an address.
_WATCHED = 4

_ERRNOS = {
    getattr(errno, name)
    for name in (
        "EIO", "EREMOTEIO", "EBUSY", "EAGAIN", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH",
        "EHOSTDOWN", "EHOSTUNREACH", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE",
    )
    if hasattr(errno, name)
}  # fmt: skip
# Classes of botocore, aiohttp, requests, urllib3 and httpx, which may not be installed.
_NAMES = {
    "TimeoutError", "ConnectionError", "HTTPClientError", "ClientConnectionError",
    "ClientPayloadError", "ServerTimeoutError", "IncompleteRead", "ResponseParserError",
    "TransportError",
}  # fmt: skip

# What servers answer that have too much to do: `status` of aiohttp's errors, `code` of gcsfs's,
# `status_code` of the response of the Hub's.
_STATUSES = {"429", "500", "502", "503", "504"}

T = TypeVar("T")


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may succeed a little later.

    Errors of the network and of a server (500, 503) are transient, in contrast to files that are
    missing, forbidden or wrong.
    """
    if isinstance(error, ConfigError):  # its cause decides
        return error.__context__ is not None and is_transient(error.__context__)
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    answer = getattr(error, "response", None)
    told = [getattr(error, name, None) for name in ("status", "code")]
    if any(map(is_busy, (*told, getattr(answer, "status_code", None)))):
        return True
    return bool(_NAMES & {kind.__name__ for kind in type(error).__mro__})


def is_busy(status: object) -> bool:
    """Return whether a server with this HTTP status has too much to do, or is broken for now."""
    return str(status) in _STATUSES


def is_forbidden(error: BaseException) -> bool:
    """Return whether a store does not allow a call; gcsfs has no class of its own for that."""
    refused = isinstance(error, OSError) and str(error).startswith("Forbidden: ")
    return refused or isinstance(error, PermissionError)


def is_of_store(error: BaseException) -> bool:
    """Return whether a file could not be read whatever it holds: it is away, forbidden or gone."""
    if is_forbidden(error) or isinstance(error, FileNotFoundError) or is_transient(error):
        return True
    # Those of what a file holds have no number, as Arrow and gzip raise them.
    return isinstance(error, OSError) and error.errno is not None


def retry_on_driver(call: Callable[[], T], what: str) -> T:
    """Return the result of a call on the driver. Raises RunError if the store does not answer."""
    try:
        return retry_with_backoff(call, what, WAITS_S[:_WATCHED])
    except StoreError as error:
        raise RunError(f"{error}; run again to resume") from error


def retry_with_backoff(call: Callable[[], T], what: str, waits: Sequence[float] | None = None) -> T:
    """Return the result of a call; repeat it while it raises transient errors.

    Args:
        call: the call.
        what: the file or folder, for the message.
        waits: seconds between the tries.

    Raises:
        StoreError: the store did not answer. Other errors of the call are raised as they are.
    """
    waits = WAITS_S if waits is None else waits
    began = monotonic()
    for wait in waits:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(wait * random.uniform(0.8, 1.2))  # workers should not retry all at once
    try:
        return call()
    except Exception as error:
        if not is_transient(error):
            raise
        raise StoreError(
            f"{what} can't be reached, tried {len(waits) + 1} times over "
            f"{monotonic() - began:.0f} s: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
