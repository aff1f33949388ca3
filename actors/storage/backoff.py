"""Stores that are away for a while: the same call again, after longer and longer waits."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from pipemill.errors import ConfigError, RunError, StoreError

# Beside what a store's client does by itself. Together a minute: a server is back by then, or
# somebody has to look after it.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# Of them a driver waits through the first: its user may have mistyped an address, and watches.
_WATCHED = 4

_ERRNOS = {
    getattr(errno, name)
    for name in (
        "EIO", "EREMOTEIO", "EBUSY", "EAGAIN", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH",
        "EHOSTDOWN", "EHOSTUNREACH", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE",
    )
    if hasattr(errno, name)
}  # fmt: skip
# Of botocore, aiohttp, requests and urllib3, which need not be installed.
_NAMES = {
    "TimeoutError", "ConnectionError", "HTTPClientError", "ClientConnectionError",
    "ClientPayloadError", "ServerTimeoutError", "IncompleteRead", "ResponseParserError",
}  # fmt: skip

T = TypeVar("T")


def is_transient(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later.

    That is so of the network's troubles and of a server's (500, 503), not of what is missing,
    forbidden or wrong.
    """
    if isinstance(error, ConfigError):  # which says it of what was raised below it
        return error.__context__ is not None and is_transient(error.__context__)
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    return bool(_NAMES & {kind.__name__ for kind in type(error).__mro__})


def retry_on_driver(call: Callable[[], T], what: str) -> T:
    """The result of a driver's call. Raises RunError if the store stays away."""
    try:
        return retry_with_backoff(call, what, WAITS_S[:_WATCHED])
    except StoreError as error:
        raise RunError(f"{error}; run again to resume") from error


def retry_with_backoff(call: Callable[[], T], what: str, waits: Sequence[float] | None = None) -> T:
    """Its result. Raises StoreError if the store stays away, and whatever else the call raises.

    what: the file or folder, for the message.
    """
    waits = WAITS_S if waits is None else waits
    for wait in waits:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(wait * random.uniform(0.8, 1.2))  # not all workers at once
    try:
        return call()
    except Exception as error:
        if not is_transient(error):
            raise
        raise StoreError(
            f"{what} can't be reached, tried {len(waits) + 1} times over "
            f"{sum(waits):.0f} s: {type(error).__name__}: {error}"
        ) from error
