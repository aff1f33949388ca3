"""Read the bytes behind a value of a media column, only from where the job allows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from . import local_files, remote_files
from .base64_text import decode_base64, decode_media
from .local_files import shorten_name
from .urls import Url, escapes_root, joins_urls

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST = 16384  # characters of a URL; paths are shorter
_LOCAL_SCHEMES = ("file", "local")


@dataclass(frozen=True, kw_only=True)
class MediaAccess:
    """The places that media named in the data may be read from; travels to workers.

    Attributes:
        roots: folders and URL prefixes (`/data/pics`, `s3://bucket/images/`, `https://host/pics/`).
            A path or URL in a row is read only if it lies below one of them. Without roots, only
            bytes in the data are taken. Folders are made absolute when this is constructed, from
            the current folder: construct it in the process that the user started.
        options: fsspec storage options as a JSON object. Those under a protocol's name
            (`{"https": {"headers": {…}}}`) are for that protocol. The others are for every store
            but http and https, because a web server must not get an object store's keys.
        folder: where a relative path is looked for before the roots; "" for the roots alone.
        waits: whether a server that is away is waited for as for a store, and then is no row's
            fault. Else it is that of the row that names it.
    """

    roots: tuple[str, ...] = ()
    options: str = field(default="{}", repr=False)
    folder: str = ""
    waits: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.roots, str):
            raise ValueError(f"input.media_roots must be a list, not the text {self.roots!r}")
        object.__setattr__(self, "roots", tuple(_normalize_root(root) for root in self.roots))
        try:
            valid = isinstance(json.loads(self.options), dict)
        except ValueError:
            valid = False
        if not valid:  # the message leaves out the text, which may hold secrets
            raise ValueError("the storage options of media are not a JSON object")

    def beside(self, folder: str | None) -> MediaAccess:
        """Return the same for the rows of a file in this folder, if it lies below a root."""
        return self if folder is None else _make_access_beside(self, folder)

    def check(self) -> None:
        """Check, before the first row, that every root can be used on this machine.

        Raises:
            FileNotFoundError: for a folder that this machine does not have.
            MissingLibrary: if the library of a protocol is not installed.
            ValueError: for a protocol that fsspec does not know.
        """
        for root in self.roots:
            if _URL.match(root):
                remote_files.open_filesystem(Url.parse(root), self.roots, self.options)
            elif not os.path.exists(root):
                raise FileNotFoundError(
                    f"input.media_roots names the folder {root!r}, which this machine does not have"
                )

    def fetch(self, value: Any) -> bytes:
        """Return the bytes of a value in a media column.

        Args:
            value: bytes, a path or URL, a `data:` URL, the base64 text of an image or audio file,
                or {"bytes": …, "path": …}. A relative path is looked for below each root in turn.

        Raises:
            ValueError: for a value without data.
            PermissionError: for a path or URL outside the roots.
            OSError: for a file that cannot be read.
            MediaAway: if its server is away, and is waited for.
        """
        if isinstance(value, Mapping):
            inner = value.get("bytes")
            value = value.get("path") if inner is None else inner
        if isinstance(value, bytes | bytearray | memoryview):
            data, name = bytes(value), "the value"
        elif isinstance(value, str) and value:
            data, name = self._read_text(value), shorten_name(value)
        elif value == "":
            raise ValueError("the value is an empty text, not a path or URL")
        else:
            raise ValueError(
                f"the value is neither bytes nor a path or URL, but {type(value).__name__}"
            )
        if not data:
            raise ValueError(f"{name} is empty (0 bytes)")
        return data

    def _read_text(self, name: str) -> bytes:
        if name[:5].lower() == "data:":
            return _decode_data_url(name)
        if (data := decode_media(name)) is not None:
            return data
        if len(name) > _LONGEST:
            raise ValueError(
                f"a text of {len(name):,} characters is too long for a path or URL, and it is not "
                f"the base64 text of an image or audio file: {shorten_name(name)}"
            )
        if _CONTROL.search(name):
            raise ValueError(
                f"a path or URL must not have control characters: {shorten_name(name)}"
            )
        if not _URL.match(name):
            return self._read_absolute(name) if os.path.isabs(name) else self._read_relative(name)
        scheme, rest = name.split("://", 1)
        if scheme.lower() in _LOCAL_SCHEMES:
            path = rest.removeprefix("localhost")
            # fsspec takes such a URL as it is; Path.as_uri() quotes it.
            return self._read_absolute(path if os.path.exists(path) else unquote(path))
        return self._read_url(name)

    def _read_absolute(self, path: str) -> bytes:
        folders = [root for root in self.roots if not _URL.match(root)]
        real = local_files.resolve_path(path, folders) if os.path.isabs(path) else None
        if real is None:
            raise outside_roots_error(path)
        return local_files.read(real)

    def _read_relative(self, path: str) -> bytes:
        if not self.roots:
            raise outside_roots_error(path)
        for root in (*filter(None, [self.folder]), *self.roots):
            try:
                if _URL.match(root):
                    return self._read_url(str(Url.parse(root).join(path)))
                return self._read_absolute(os.path.join(root, path))
            except FileNotFoundError:
                continue
        raise FileNotFoundError(f"no file {shorten_name(path)} below any of input.media_roots")

    def _read_url(self, name: str) -> bytes:
        url = Url.parse(name)
        roots = [Url.parse(root) for root in self.roots if _URL.match(root)]
        root = next((root for root in roots if url.is_below(root)), None)
        if joins_urls(name) or root is None:
            raise outside_roots_error(name)
        return remote_files.read(url, self.roots, self.options, root if self.waits else None)


@lru_cache(maxsize=256)
def _make_access_beside(access: MediaAccess, folder: str) -> MediaAccess:
    return replace(access, folder=folder) if is_below(folder, access.roots) else access


def is_below(folder: str, roots: Iterable[str]) -> bool:
    """Tell whether a folder or URL is one of the roots, or lies below one."""
    return any(f"{folder}/".startswith(f"{root.rstrip('/')}/") for root in roots)


def outside_roots_error(name: str) -> PermissionError:
    """Return the error for a path or URL that lies below none of the roots."""
    return PermissionError(
        f"not below any of input.media_roots: {shorten_name(name)}; "
        "to read it, add its folder or URL to input.media_roots"
    )


def _normalize_root(root: str) -> str:
    """Return a root as an absolute path or a URL, to compare the rows' values with."""
    if not root:
        raise ValueError("input.media_roots has an empty text: give a folder or a URL")
    if not _URL.match(root):
        return os.path.abspath(root)
    scheme, rest = root.split("://", 1)
    if scheme.lower() in _LOCAL_SCHEMES:
        return os.path.abspath(rest)
    url = Url.parse(root)
    if joins_urls(root) or escapes_root(url.path) or not (url.host or url.path.strip("/")):
        raise ValueError(
            f"input.media_roots: {root!r} must name a folder of one host or bucket: neither in an "
            "archive nor with .. in it"
        )
    return root


def _decode_data_url(text: str) -> bytes:
    header, comma, payload = text.partition(",")
    if not comma:
        raise ValueError(f"a data: URL must have a comma before its data: {shorten_name(text)}")
    data = unquote_to_bytes(payload)
    if not header.lower().endswith(";base64"):
        # transformers also takes base64 text without the mark.
        encoded = decode_media(payload)
        return data if encoded is None else encoded
    try:
        return decode_base64(data.decode("latin-1"))
    except ValueError as error:
        raise ValueError(
            f"a data: URL that is not base64 ({error}): {shorten_name(text)}"
        ) from None
