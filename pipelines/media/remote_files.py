"""Read files behind URLs by fsspec; a web server can't redirect to what the job does not allow."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

from pipemill.actors.storage.backoff import retry_with_backoff

from pipemill.errors import StoreError

from .local_files import shorten_name
from .media_libraries import MissingLibrary
from .urls import Url

_WEB = ("http", "https")
# Seconds between the tries of a file. Of a server that is away for longer, rows are dead letters.
_WAITS_S = (1.0, 4.0)


class Redirected(PermissionError):
    """A redirect that was not followed."""


def read(url: Url, roots: tuple[str, ...], options: str) -> bytes:
    """Return the bytes behind a URL.

    Args:
        url: a URL below one of the roots; the caller has checked that.
        roots: the roots of the job.
        options: as in `MediaAccess`.

    Raises:
        OSError: for a file that can't be read.
        MissingLibrary: if the library of the protocol is not installed.
    """
    name = str(url)
    try:
        # Its name in the file system, which has no scheme except on the web.
        files = open_filesystem(url, roots, options)
        inner = files._strip_protocol(name.replace("::", "\0")).replace("\0", "::")
        return retry_with_backoff(lambda: files.cat_file(inner), name, _WAITS_S)
    except (MissingLibrary, Redirected):
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
    return aiohttp.ClientSession(loop=loop, trace_configs=traces, **arguments)
