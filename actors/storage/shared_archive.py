"""Archives that several threads read at once, such as tar://member::data.tar."""

from __future__ import annotations

import gzip
import io
import itertools
import sys
import tarfile
import threading
import weakref
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from fsspec import AbstractFileSystem

# Of thousands of archives, the last ones stay open: each has a file of the system, and a list of
# all that is in it.
_MOST = 64
_BUFFER = 2**18
# Its files lock the archive themselves.
_SAFE = "zip"

_opened: OrderedDict[Hashable, AbstractFileSystem] = OrderedDict()
# Of those that are being opened: from a store that takes a while, many at a time.
_opening: dict[Hashable, threading.Lock] = {}
_lock = threading.Lock()
_numbers = itertools.count()


def open_archive(key: Hashable, make: Callable[[], AbstractFileSystem]) -> AbstractFileSystem:
    """Return the archive of a key; `make` opens it, if it is not open.

    It is closed when others were used since, and neither it nor a file in it is in use.
    """
    with _lock:
        if key in _opened:
            _opened.move_to_end(key)
            return _opened[key]
        opening = _opening.setdefault(key, threading.Lock())
    with opening:
        with _lock:
            if key in _opened:  # another thread was faster
                return _opened[key]
        archive = None
        try:
            archive = _share_archive(make())
        finally:
            with _lock:
                _opening.pop(key, None)
                if archive is not None:
                    _opened[key] = archive
                if len(_opened) > _MOST:
                    _opened.popitem(last=False)
        return archive


def forget_archives() -> None:
    """Open all archives again when they are used next: another file may lie there by then."""
    with _lock:
        _opened.clear()


def _share_archive(filesystem: AbstractFileSystem) -> AbstractFileSystem:
    """Let several threads read files of an archive, and let each file keep the archive open.

    The files of a tar share one place in it: between a thread's `seek` and its `read`, another
    one's `seek` would give it the bytes of another file.
    """
    protocol = filesystem.protocol
    is_safe = _SAFE in ([protocol] if isinstance(protocol, str) else protocol)
    lock, itself = threading.Lock(), weakref.ref(filesystem)

    def open_shared(*args: Any, **keywords: Any) -> IO[bytes]:
        archive: Any = itself()  # it is there: this is its method
        own = threading.Lock() if is_safe else lock
        with own, _explain_damage():
            file = type(archive)._open(archive, *args, **keywords)
        if is_safe and not file.readable():
            file.archive = archive
            return file
        if is_safe and sys.version_info < (3, 13, 2):
            _let_seek_alone(file._fileobj)
        return io.BufferedReader(_SharedFile(file, own, archive), _BUFFER)

    filesystem._open = open_shared
    filesystem._number = next(_numbers)
    return filesystem


def _let_seek_alone(member: Any) -> None:
    """Let a file of a zip seek from its own place.

    Python 3.12.0 to 3.12.8, 3.13.0 and 3.13.1 seek from where any file of the archive was read
    last, if it is not compressed: the next bytes are those of another file.
    """
    seek, itself = type(member).seek, weakref.proxy(member)

    def seek_alone(offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = itself.tell() + offset, io.SEEK_SET
        return int(seek(itself, offset, whence))

    member.seek = seek_alone


def find_archive_number(archive: AbstractFileSystem) -> int:
    """Return the number of an opened archive. One that is opened again has another one."""
    return int(archive._number)


@contextmanager
def _explain_damage() -> Iterator[None]:
    """Raise what damage of a compressed file raises, an OSError, for that of an archive."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise gzip.BadGzipFile(f"its archive is damaged: {error}") from None


class _SharedFile(io.RawIOBase):
    """A file of an archive. Of a tar only one file is read at a time.

    To close it takes no lock: that may happen wherever memory is freed.
    """

    def __init__(self, file: Any, lock: threading.Lock, archive: AbstractFileSystem) -> None:
        self._file, self._lock, self._archive = file, lock, archive

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        with self._lock, _explain_damage():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._lock, _explain_damage():
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()
