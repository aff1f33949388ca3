"""Stores that are away for a while: the same call again, after longer and longer waits."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipemill.actors.store import StoreError

# Beside what a store's client does by itself. Together a minute: a server is back by then, or
# somebody has to look after it.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

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


def is_passing(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later.

    That is so of the network's troubles and of a server's (500, 503), not of what is missing,
    forbidden or wrong.
    """
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    return bool(_NAMES & {kind.__name__ for kind in type(error).__mro__})


def patiently(call: Callable[[], T], what: str) -> T:
    """Its result. Raises StoreError if the store stays away, and whatever else the call raises.

    what: the file or folder, for the message.
    """
    for wait in WAITS_S:
        try:
            return call()
        except Exception as error:
            if not is_passing(error):
                raise
        time.sleep(wait * random.uniform(0.8, 1.2))  # not all workers at once
    try:
        return call()
    except Exception as error:
        if not is_passing(error):
            raise
        raise StoreError(
            f"{what} can't be reached, tried {len(WAITS_S) + 1} times over "
            f"{sum(WAITS_S):.0f} s: {type(error).__name__}: {error}"
        ) from error
