"""Samples in a tar: members next to each other of one key. Nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from ..streams.read_bytes import skip_bytes

_READ = 2**20
# What a file that ends too early, or is none, makes the readers of tar, gzip and zstd raise.
_UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, RecursionError)


@dataclass
class Sample:
    """start, stop: its bytes in the tar, decompressed, from its first header on.

    members: by extension; those that were wanted with their bytes, the others with None.
    error: why it is none, or not whole.
    torn: whether the tar can't be read on.
    """

    key: str
    start: int
    stop: int
    members: dict[str, bytes | None] = field(default_factory=dict)
    error: Exception | None = None
    torn: bool = False


def samples(
    stream: IO[bytes], start: int, stop: int, wanted: Callable[[str], bool]
) -> Iterator[Sample]:
    """Those that start within [start, stop), which must be a sample's start; -1 is the end.

    Where the tar can't be read on (it was cut off, or is damaged) the sample at that place is the
    last one, with an error: whether it has all its members can't be known, nor what followed.
    """
    skip_bytes(stream, start)
    walk = _Walk(stream, start)
    now: Sample | None = None
    try:
        for member in walk.members(stop):
            if member is None and now is not None:
                yield now
                now = None
            name = split_name(member.name) if member is not None else None
            if member is None or name is None or not member.isreg():
                continue
            key, extension = name
            if now is None or now.key != key:
                if now is not None:
                    yield now
                now = Sample(key, member.offset, member.offset)
            if extension in now.members:
                now.error = ValueError(f"two members {key}.{extension}")
            if member.issparse():
                now.error = ValueError(f"{member.name} is a sparse file")
            now.members[extension] = walk.read(member) if wanted(extension) else None
            now.stop = walk.next
    except _UNREADABLE as error:
        reason = ValueError(f"the tar can't be read from byte {walk.next} on: {error}")
        now = now or Sample("", walk.next, walk.next)
        now.error, now.torn, now.stop = reason, True, max(now.stop, walk.next + 1)
    if now is not None:
        yield now


def split_name(name: str) -> tuple[str, str] | None:
    """A member's key, its folder included, and its extension: all after the first dot, in small
    letters. None for names that make no sample: hidden ones, and those without an extension."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not (stem and dot and extension) or (base.startswith("__") and base.endswith("__")):
        return None
    return f"{folder}{slash}{stem}", extension.lower()


class _Walk:
    """Goes from header to header. `next` is the place of the one to come.

    The tarfile module's own iterator takes damage for the end, and a tar appended to another for
    nothing; it only parses headers here, for which it needs `fileobj`, `offset` and the encoding.
    """

    def __init__(self, stream: IO[bytes], place: int) -> None:
        self.stream = stream
        self.place = self.next = place
        self.closed = False

    def members(self, stop: int) -> Iterator[tarfile.TarInfo | None]:
        """None for the end of a tar, behind which another may follow."""
        header = _Header(self)
        while stop < 0 or self.next < stop:
            self.seek(self.next)
            try:
                member = tarfile.TarInfo.fromtarfile(header)  # type: ignore[arg-type]
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                self.next = self.place
                if not self.closed:
                    self.closed = True
                    yield None
                continue
            except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
                if self.closed:
                    return
                raise EOFError("the file ends without the mark of a tar's end") from None
            except tarfile.TruncatedHeaderError:  # type: ignore[attr-defined]
                if self.closed:
                    return
                raise EOFError("the file ends in a header") from None
            self.closed = False
            if not 0 <= member.size < 2**62 or header.offset <= self.next:
                raise tarfile.ReadError(f"{member.name} has no possible size")
            self.next = header.offset
            yield member

    def read(self, member: tarfile.TarInfo) -> bytes:
        self.seek(member.offset_data)
        parts, left = [], member.size
        # A bit at a time: the header may promise more than there is, or than there is memory.
        while left and (part := self.take(min(left, _READ))):
            parts.append(part)
            left -= len(part)
        if left:
            self.next = member.offset
            raise EOFError(f"{member.name} is cut off")
        return b"".join(parts)

    def seek(self, place: int) -> None:
        # Past the end of the file is no error yet: nothing can be read there.
        if place != self.place:
            skip_bytes(self.stream, place if self.stream.seekable() else place - self.place)
        self.place = place

    def take(self, count: int) -> bytes:
        data = self.stream.read(count)
        self.place += len(data)
        return data


class _Header:
    """As much of a `tarfile.TarFile` as parsing a header asks for."""

    encoding, errors = "utf-8", "replace"

    def __init__(self, walk: _Walk) -> None:
        self.walk, self.offset = walk, 0
        self.fileobj: Any = self
        self.pax_headers: dict[str, str] = {}
        self.tarinfo = tarfile.TarInfo

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _READ:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self.walk.take(count)

    def tell(self) -> int:
        return self.walk.place

    def seek(self, place: int) -> None:
        self.walk.seek(place)
