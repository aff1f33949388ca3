"""Read samples from a tar: adjacent members of one key. Nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from ...storage.backoff import is_of_store
from ..bad_file import explain_compression
from ..streams.kept_streams import Place
from ..streams.read_bytes import skip_bytes

_READ = 2**20
_HEAD = 16  # bytes that show how a file is compressed
# What readers of tar, gzip and zstd raise for a file that is cut off, or not of the format.
_UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, RecursionError)


@dataclass
class Sample:
    """The members of one key.

    start, stop: the bytes of the decompressed tar, from the first member's header on.
    members: by extension; None for those that were not read.
    error: why the sample is invalid or incomplete.
    torn: whether the tar can't be read after it.
    """

    key: str
    start: int
    stop: int
    members: dict[str, bytes | None] = field(default_factory=dict)
    error: Exception | None = None
    torn: bool = False


def read_samples(
    place: Place, start: int, stop: int, wanted: Callable[[str], bool], is_cut: bool = False
) -> Iterator[Sample]:
    """Yield the samples that start in [start, stop); a stop of -1 is the end of the file.

    Where the tar is cut off or damaged, the sample there is the last one and has an error: whether
    it has all its members, and what followed, is unknown.

    place: in the tar, at the start of a sample that is not after `start`. Afterwards it is behind
        the samples, and stays unless the tar can't be read further.
    wanted: tells for an extension whether to read the members' bytes.
    is_cut: whether `start` may be in the middle of a sample. The tar is then read from the place
        on; else `start` is the start of a sample, and so is `stop`.
    """
    walk = _Walk(place.stream, place.position)
    if not is_cut:
        walk.seek(start)
        walk.next = start
    sample: Sample | None = None
    try:
        for member in walk.members(-1 if is_cut else stop):
            if member is None and sample is not None:
                if sample.start >= start:
                    yield sample
                sample = None
            name = split_name(member.name) if member is not None else None
            if member is None or name is None or not (member.isreg() or _is_link(member)):
                continue
            key, extension = name
            if sample is None or sample.key != key:
                if sample is not None and sample.start >= start:
                    yield sample
                sample = Sample(key, member.offset, member.offset)
                if 0 <= stop <= sample.start:
                    walk.seek(sample.start)
                    place.position, place.after = sample.start, stop
                    place.stays = place.stream.seekable()
                    return
            if extension in sample.members:
                sample.error = ValueError(f"two members {key}.{extension}")
            odd = _find_member_error(member)
            sample.error = sample.error or odd
            reads = sample.start >= start and not odd and wanted(extension)
            sample.members[extension] = walk.read(member) if reads else None
            sample.stop = walk.next
        place.position, place.stays = walk.position, not is_cut
    except _UNREADABLE as error:
        if is_of_store(error):  # the tar is not at fault
            raise
        why = explain_compression(walk.head) or error
        reason = ValueError(f"the tar can't be read from byte {walk.next} on: {why}")
        sample = sample or Sample("", walk.next, walk.next)
        sample.error, sample.torn = reason, True
        sample.stop = max(sample.stop, walk.next + 1)
    if sample is not None and sample.start >= start and not 0 <= stop <= sample.start:
        yield sample


def _is_link(member: tarfile.TarInfo) -> bool:
    return member.issym() or member.islnk()


def _find_member_error(member: tarfile.TarInfo) -> ValueError | None:
    """Return why a member's bytes can't be read, which are elsewhere or not as many as it says."""
    if _is_link(member):
        return ValueError(
            f"{member.name} is a link to {member.linkname}, and holds no data: pack the file "
            "itself, as `tar --dereference --hard-dereference` does"
        )
    if member.issparse():
        return ValueError(f"{member.name} is a sparse file: pack it without `tar --sparse`")
    return None


def split_name(name: str) -> tuple[str, str] | None:
    """Return a member's key with its folder, and its extension in lower case.

    The extension is everything after the first dot. None for hidden names, and those without one.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not (stem and dot and extension) or (base.startswith("__") and base.endswith("__")):
        return None
    return f"{folder}{slash}{stem}", extension.lower()


class _Walk:
    """Goes through a tar from header to header; `next` is the byte of the next one.

    The iterator of the tarfile module takes damage for the end, and does not see a tar that is
    appended to another one. Here the module only parses headers.
    """

    def __init__(self, stream: IO[bytes], position: int) -> None:
        self.stream = stream
        self.position = self.next = position
        self.closed = False
        self.head = b""

    def members(self, stop: int) -> Iterator[tarfile.TarInfo | None]:
        """Yield the members, and None for the end of a tar, which another one may follow."""
        header = _Header(self)
        while stop < 0 or self.next < stop:
            self.seek(self.next)
            header.left = _READ
            try:
                member = tarfile.TarInfo.fromtarfile(header)  # type: ignore[arg-type]
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                self.next = self.position
                if not self.closed:
                    self.closed = True
                    yield None
                continue
            except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
                if self.closed:
                    return
                raise EOFError("the file has no end-of-tar mark") from None
            except tarfile.TruncatedHeaderError:  # type: ignore[attr-defined]
                if self.closed:
                    return
                raise EOFError("the file ends in a header") from None
            self.closed = False
            if not 0 <= member.size < 2**62 or header.offset <= self.next:
                raise tarfile.ReadError(f"{member.name} has an impossible size")
            self.next = header.offset
            yield member

    def read(self, member: tarfile.TarInfo) -> bytes:
        self.seek(member.offset_data)
        parts, left = [], member.size
        # In pieces: the header may promise more bytes than the file has, or the memory.
        while left and (part := self.take(min(left, _READ))):
            parts.append(part)
            left -= len(part)
        if left:
            self.next = member.offset
            raise EOFError(f"{member.name} is cut off")
        return b"".join(parts)

    def seek(self, position: int) -> None:
        # A position after the end of the file is not an error yet.
        if position != self.position:
            skip_bytes(self.stream, position, self.position)
        self.position = position

    def take(self, count: int) -> bytes:
        data = self.stream.read(count)
        if not self.position:
            self.head = data[:_HEAD]
        self.position += len(data)
        return data


class _Header:
    """The part of a `tarfile.TarFile` that parsing a header needs.

    left: how many bytes the next header may have. Newer versions of Python read large ones in
        pieces.
    """

    encoding, errors = "utf-8", "replace"

    def __init__(self, walk: _Walk) -> None:
        self.walk, self.offset, self.left = walk, 0, _READ
        self.fileobj: Any = self
        self.pax_headers: dict[str, str] = {}
        self.tarinfo = tarfile.TarInfo

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise tarfile.ReadError(f"a header of more than {_READ:,} bytes")
        self.left -= count
        return self.walk.take(count)

    def tell(self) -> int:
        return self.walk.position

    def seek(self, position: int) -> None:
        self.walk.seek(position)
