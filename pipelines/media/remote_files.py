"""Read files behind URLs by fsspec; a web server can't redirect to what the job does not allow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

from pipemill.actors.faults.blame import MediaAway
from pipemill.actors.faults.watchdog import mark_progress
from pipemill.actors.storage.backoff import is_transient, retry_with_backoff

from pipemill.errors import StoreError

from .local_files import shorten_name
from .media_libraries import MissingLibrary
from .urls import Url

_WEB = ("http", "https")
# Seconds between the tries of a file, before its server is asked for its root.
_WAITS_S = (1.0, 4.0)
# How long a web server may take for a file, and how long it may send nothing. The watchdog of the
# stage that waits ends the process after 300 s without a step.
_WHOLE_S, _SILENT_S = 240.0, 60.0
# How long a server that sent nothing for a file may take to say anything at all.
_SOON_S = 10.0
# When each server was found to be away; it is not asked again for so many seconds.
_away: dict[str, float] = {}
_AWAY_S = 60.0
_ADVICE = (
    "run again when it does, or take it out of input.media_roots: its rows are dead letters then"
)


class Redirected(PermissionError):
    """A redirect that was not followed."""


def read(url: Url, roots: tuple[str, ...], options: str, awaited: Url | None = None) -> bytes:
    """Return the bytes behind a URL.

    Args:
        url: a URL below one of the roots; the caller has checked that.
        roots: the roots of the job.
        options: as in `MediaAccess`.
        awaited: the root that the URL is below, if its server is waited for.

    Raises:
        OSError: for a file that can't be read.
        MediaAway: if the awaited server does not answer.
        MissingLibrary: if the library of the protocol is not installed.
    """
    name = str(url)
    try:
        # Its name in the file system, which has no scheme except on the web.
        files = open_filesystem(url, roots, options)
        inner = files._strip_protocol(name.replace("::", "\0")).replace("\0", "::")
        return _fetch(files, inner, name, awaited)
    except (MissingLibrary, Redirected, MediaAway):
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"no file at {shorten_name(name)}") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{shorten_name(name)} is a folder, not a file") from None
    except Exception as error:
        # Each store raises other exceptions; botocore's and aiohttp's are not OSErrors.
        cause = error.__cause__ if isinstance(error, StoreError) else error
        reason = f"{type(cause).__name__}: {cause}"
        raise OSError(f"can't read {shorten_name(name)} ({reason})") from error


def _fetch(files: Any, inner: str, name: str, awaited: Url | None) -> bytes:
    server = "" if awaited is None else f"{awaited.scheme}://{awaited.host}"
    if server in _away and time.monotonic() < _away[server] + _AWAY_S:
        raise MediaAway(f"{server} does not answer; {_ADVICE}")

    def fetch() -> bytes:
        mark_progress()
        try:
            return bytes(files.cat_file(inner))
        except TimeoutError as error:
            # A server that says nothing for so long has had its time to come back.
            if awaited is None or _is_server_answering(files, awaited, _SOON_S):
                raise
            _away[server] = time.monotonic()
            raise MediaAway(
                f"{server} does not answer: it sent nothing for {_SILENT_S:g} s; {_ADVICE}"
            ) from error

    try:
        return retry_with_backoff(fetch, name, _WAITS_S)
    except StoreError:
        if awaited is None or _is_server_answering(files, awaited):
            raise
    try:
        return retry_with_backoff(fetch, name)
    except StoreError as error:
        if _is_server_answering(files, awaited):
            raise
        _away[server] = time.monotonic()
        raise MediaAway(f"{server} does not answer: {error}; {_ADVICE}") from error


def _is_server_answering(files: Any, root: Url, within_s: float | None = None) -> bool:
    """Tell whether a server answers at all: then a file that it does not give is at fault."""
    # It is that of fsspec's asynchronous file systems; others would take it for an option.
    limit = {"timeout": within_s} if within_s is not None and root.scheme in _WEB else {}
    try:
        mark_progress()
        files.cat_file(files._strip_protocol(str(root)), start=0, end=1, **limit)
    except Exception as error:
        return not is_transient(error)
    return True


def open_filesystem(url: Url, roots: tuple[str, ...], options: str) -> Any:
    """Return the file system that reads a URL.

    Raises:
        MissingLibrary: if the library of the protocol is not installed.
        ValueError: for a protocol that fsspec does not know.
    """
    try:
        return _open_filesystem(url.scheme, roots if url.scheme in _WEB else (), options)
    except ImportError as error:
        raise MissingLibrary(f"{url.scheme}:// in input.media_roots: {error}") from error


# fsspec's cache of file systems could return one that is guarded by other roots.
@lru_cache(maxsize=32)
def _open_filesystem(scheme: str, roots: tuple[str, ...], options: str) -> Any:
    import fsspec

    selected = _select_options(scheme, json.loads(options))
    if scheme not in _WEB:
        # Without cached listings: a file may be written after its folder is listed.
        return fsspec.filesystem(scheme, **{"use_listings_cache": False, **selected})
    selected["get_client"] = partial(_make_guarded_client, roots)
    return fsspec.filesystem(scheme, skip_instance_cache=True, **selected)


def _select_options(scheme: str, options: dict[str, Any]) -> dict[str, Any]:
    from fsspec import available_protocols

    protocols = set(available_protocols())
    general = {key: value for key, value in options.items() if key not in protocols}
    return {**({} if scheme in _WEB else general), **options.get(scheme, {})}


async def _make_guarded_client(roots: Iterable[str], *, loop: Any = None, **arguments: Any) -> Any:
    """Make a web client that follows a redirect only to URLs below one of the roots."""
    import aiohttp
    from yarl import URL

    allowed = [Url.parse(root) for root in roots if root.lower().startswith(("http:", "https:"))]

    async def check(session: Any, context: Any, params: Any) -> None:
        headers = params.response.headers
        location = headers.get("Location") or headers.get("URI") or ""
        target = str(params.url.join(URL(location)))
        if not any(Url.parse(target).is_below(root) for root in allowed):
            params.response.close()
            raise Redirected(
                f"redirected out of input.media_roots: {str(params.url)!r} leads to {target!r}; "
                "to read it, add its URL to input.media_roots"
            )

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(check)
    traces = [*arguments.pop("trace_configs", []), trace]
    timeout = aiohttp.ClientTimeout(total=_WHOLE_S, sock_connect=_SILENT_S, sock_read=_SILENT_S)
    given = {"timeout": timeout, **arguments}
    return aiohttp.ClientSession(loop=loop, trace_configs=traces, **given)
