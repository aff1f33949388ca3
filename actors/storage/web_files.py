"""Files of web servers that only send a file from its start, such as `python -m http.server`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import IO, Any

from fsspec import AbstractFileSystem

from .backoff import is_transient

_READ = 2**20


def is_web(filesystem: AbstractFileSystem) -> bool:
    """Tell whether files come from web servers, which have no folders."""
    protocols = filesystem.protocol
    return "http" in ([protocols] if isinstance(protocols, str) else protocols)


def is_web_file(filesystem: AbstractFileSystem, path: str) -> bool:
    """Tell whether a web server has a file. Raises the error of a server that can't say now.

    fsspec's `isfile` is False then, as for a file that is not there.
    """
    try:
        filesystem.info(path)
    except FileNotFoundError as error:
        if error.__cause__ is not None and is_transient(error.__cause__):
            raise error.__cause__ from None
        return False
    return True


def read_without_ranges(filesystem: AbstractFileSystem) -> None:
    """Let any part of a web server's files be read, also if it does not send parts.

    fsspec raises a ValueError for such a part, unless it is the file's beginning.
    """
    make = type(filesystem)._open

    def open_web_file(path: str, mode: str = "rb", **keywords: Any) -> IO[bytes]:
        file = make(filesystem, path, mode, **keywords)
        if getattr(file, "size", 0) is None:  # a stream: the server does not say how long it is
            file.seek = _explain_seek(file.seek)
        elif (cache := getattr(file, "cache", None)) is not None:
            whole = {**keywords, "block_size": 0}
            parts = _Parts(cache.fetcher, lambda: make(filesystem, path, mode, **whole))
            cache.fetcher = parts.fetch
        return file

    filesystem._open = open_web_file


def _explain_seek(seek: Callable[..., int]) -> Callable[..., int]:
    def explained(*place: int) -> int:
        try:
            return seek(*place)
        except ValueError:
            raise ValueError(
                "the web server does not say how long it is, and this format is not read from its "
                "start to its end: download it first"
            ) from None

    return explained


class _Parts:
    """Parts of one file.

    fetch_range: asks the server for a part.
    open_whole: opens the file as a stream from its start.
    """

    def __init__(
        self, fetch_range: Callable[[int, int], bytes], open_whole: Callable[[], IO[bytes]]
    ) -> None:
        self._fetch_range, self._open_whole = fetch_range, open_whole
        self._stream: IO[bytes] | None = None
        self._position = 0
        self._lock = threading.Lock()

    def fetch(self, start: int, end: int) -> bytes:
        with self._lock:
            if self._stream is None:
                try:
                    return self._fetch_range(start, end)
                except ValueError:
                    pass
            if self._stream is None or start < self._position:
                self._stream, self._position = self._open_whole(), 0
            while self._position < start and self._read(start - self._position):
                pass
            parts = []
            while self._position < end and (part := self._read(end - self._position)):
                parts.append(part)
            return b"".join(parts)

    def _read(self, count: int) -> bytes:
        assert self._stream is not None
        data = self._stream.read(min(count, _READ))
        self._position += len(data)
        return data
