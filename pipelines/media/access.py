"""The bytes behind a value of a media column, read only from where the job allows."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from . import local_files, remote_files
from .base64_text import decode_media
from .local_files import shorten_name
from .urls import Url, escapes_root

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Of URLs; those of paths are shorter.
_LONGEST = 16384
_LOCAL_SCHEMES = ("file", "local")


@dataclass(frozen=True, kw_only=True)
class MediaAccess:
    """Where media named in the data may be read from; travels to workers.

    roots: folders and URL prefixes (`/data/pics`, `s3://bucket/images/`, `https://host/pics/`).
        What a row names is read only if it lies below one of them; with none, only bytes in the
        data are taken. Folders are made absolute here, so make this where their names are meant.
    options: fsspec storage options as a JSON object. Those under a protocol's name
        (`{"https": {"headers": {…}}}`) are for that protocol; others are for every store, but
        not for http and https, which would send an object store's keys to a web server.
    """

    roots: tuple[str, ...] = ()
    options: str = field(default="{}", repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.roots, str):
            raise ValueError(f"input.media_roots is a text, {self.roots!r}; give a list")
        object.__setattr__(self, "roots", tuple(_normalize_root(root) for root in self.roots))
        try:
            valid = isinstance(json.loads(self.options), dict)
        except ValueError:
            valid = False
        if not valid:  # without its text, which holds secrets
            raise ValueError("the storage options of media are no JSON object")

    def check(self) -> None:
        """Raises unless every root can be used here: to be called before the first row.

        Raises FileNotFoundError for a folder that this machine does not have, MissingLibrary for
        the protocol's library, ValueError for a protocol that fsspec does not know.
        """
        for root in self.roots:
            if _URL.match(root):
                remote_files.open_filesystem(Url.parse(root), self.roots, self.options)
            elif not os.path.exists(root):
                raise FileNotFoundError(f"no folder {root!r}, named in input.media_roots, here")

    def fetch(self, value: Any) -> bytes:
        """The bytes of a value: bytes, a path or URL, a `data:` URL, the base64 text of an image
        or audio file, or {"bytes": …, "path": …}.

        A relative path is looked for below each root in turn. Raises ValueError for what holds
        nothing, PermissionError for what is outside the roots, and other OSErrors for what
        cannot be read.
        """
        if isinstance(value, Mapping):
            inside = value.get("bytes")
            value = value.get("path") if inside is None else inside
        if isinstance(value, bytes | bytearray | memoryview):
            data, name = bytes(value), "the value"
        elif isinstance(value, str) and value:
            data, name = self._named(value), shorten_name(value)
        else:
            raise ValueError(
                f"the value is neither bytes nor a path or URL, but {type(value).__name__}"
            )
        if not data:
            raise ValueError(f"{name} is empty (0 bytes)")
        return data

    def _named(self, name: str) -> bytes:
        if name[:5].lower() == "data:":
            return _decode_data_url(name)
        if (data := decode_media(name)) is not None:
            return data
        if len(name) > _LONGEST:
            raise ValueError(
                f"neither a path or URL nor the base64 of an image or audio file, in {len(name):,} "
                f"characters: {shorten_name(name)}"
            )
        if _CONTROL.search(name):
            raise ValueError(f"no path or URL, for its control characters: {shorten_name(name)}")
        if not _URL.match(name):
            return self._absolute(name) if os.path.isabs(name) else self._relative(name)
        scheme, rest = name.split("://", 1)
        if scheme.lower() in _LOCAL_SCHEMES:
            path = rest.removeprefix("localhost")
            # As fsspec reads such a URL, or as Path.as_uri() writes it.
            return self._absolute(path if os.path.exists(path) else unquote(path))
        return self._url(name)

    def _absolute(self, path: str) -> bytes:
        folders = [root for root in self.roots if not _URL.match(root)]
        real = local_files.resolve_path(path, folders) if os.path.isabs(path) else None
        if real is None:
            raise outside_roots_error(path)
        return local_files.read(real)

    def _relative(self, path: str) -> bytes:
        if not self.roots:
            raise outside_roots_error(path)
        for root in self.roots:
            try:
                if _URL.match(root):
                    return self._url(str(Url.parse(root).join(path)))
                return self._absolute(os.path.join(root, path))
            except FileNotFoundError:
                continue
        raise FileNotFoundError(f"no file {shorten_name(path)} below any of input.media_roots")

    def _url(self, name: str) -> bytes:
        url = Url.parse(name)
        roots = [Url.parse(root) for root in self.roots if _URL.match(root)]
        if "::" in name or not any(url.is_below(root) for root in roots):
            raise outside_roots_error(name)
        return remote_files.read(url, self.roots, self.options)


def outside_roots_error(name: str) -> PermissionError:
    return PermissionError(
        f"not below any of input.media_roots: {shorten_name(name)}; "
        "if it is to be read, add its folder or URL to input.media_roots"
    )


def _normalize_root(root: str) -> str:
    """A root in the form that values are compared with: an absolute path, or a URL."""
    if not root:
        raise ValueError("input.media_roots has an empty text; give a folder or a URL")
    if not _URL.match(root):
        return os.path.abspath(root)
    scheme, rest = root.split("://", 1)
    if scheme.lower() in _LOCAL_SCHEMES:
        return os.path.abspath(rest)
    url = Url.parse(root)
    if "::" in root or escapes_root(url.path) or not (url.place or url.path.strip("/")):
        raise ValueError(f"input.media_roots: {root!r} names no folder of one host or bucket")
    return root


def _decode_data_url(text: str) -> bytes:
    header, comma, payload = text.partition(",")
    if not comma:
        raise ValueError(f"a data: URL without a comma, and so without data: {shorten_name(text)}")
    data = unquote_to_bytes(payload)
    if not header.lower().endswith(";base64"):
        # transformers takes base64 that is not marked as such, too.
        encoded = decode_media(payload)
        return data if encoded is None else encoded
    data = b"".join(data.split()).rstrip(b"=")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except ValueError as error:
        raise ValueError(
            f"a data: URL that is not base64 ({error}): {shorten_name(text)}"
        ) from None
