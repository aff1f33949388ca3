"""Archives that several threads read at once, such as tar://member::data.tar."""

from __future__ import annotations

import io
import threading
from typing import IO, Any

from fsspec import AbstractFileSystem

_BUFFER = 2**18
# Its files lock the archive themselves.
_SAFE = "zip"


def share_archive(filesystem: AbstractFileSystem) -> AbstractFileSystem:
    """Let several threads read files of an archive.

    Those of a tar share one place in it: between a thread's `seek` and its `read`, another one's
    `seek` would give it the bytes of another file.
    """
    protocol = filesystem.protocol
    if _SAFE in ([protocol] if isinstance(protocol, str) else protocol):
        return filesystem
    lock, usual = threading.Lock(), filesystem._open

    def open_shared(*args: Any, **keywords: Any) -> IO[bytes]:
        with lock:
            return io.BufferedReader(_SharedFile(usual(*args, **keywords), lock), _BUFFER)

    filesystem._open = open_shared
    return filesystem


class _SharedFile(io.RawIOBase):
    """A file of an archive; only one file of the archive is read at a time.

    To close it takes no lock: that may happen wherever memory is freed.
    """

    def __init__(self, file: Any, lock: threading.Lock) -> None:
        self._file, self._lock = file, lock

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        with self._lock:
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._lock:
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()
