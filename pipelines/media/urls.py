"""Decide whether one URL lies below another, however they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from pipemill.actors.storage.file_names import is_chain

_WEB = ("http", "https")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LONGEST = 16384


@dataclass(frozen=True)
class Url:
    """A URL in pieces that, joined, are the URL again.

    Attributes:
        scheme: in lower case.
        host: host and port, or bucket, with user and password if it has them. Two hosts are the
            same only if all of that is.
        path: the part up to the query.
        query: the rest, without a fragment.
    """

    scheme: str
    host: str
    path: str
    query: str = ""

    @classmethod
    def parse(cls, text: str) -> Url:
        """Parse a text with a scheme before "://"."""
        scheme, rest = text.split("://", 1)
        scheme = scheme.lower()
        if scheme not in _WEB:
            # In an object's name, ? and # are characters like others.
            host, slash, path = rest.partition("/")
            return cls(scheme, host, slash + path)
        match = re.fullmatch(r"([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", rest, re.DOTALL)
        assert match  # each piece may be empty
        host, path, query = match[1], match[2], match[3]
        host = host.lower().removesuffix(_DEFAULT_PORTS[scheme])
        return cls(scheme, host, path, query or "")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}{self.query}"

    def join(self, path: str) -> Url:
        """Return the URL of a relative path that begins at this one, which is a folder.

        Each `..` takes a folder away, as in a local path: to a store it would be a name.
        """
        folder, steps = self.path.rstrip("/"), list[str]()
        for step in path.split("/"):
            if step == ".." and (steps or "/" in folder):
                if steps:
                    steps.pop()
                else:
                    folder = folder.rpartition("/")[0]
            elif step != ".":
                steps.append(step)
        plain = "/".join(steps)
        if self.scheme in _WEB:
            plain = quote(plain)
        return Url(self.scheme, self.host, f"{folder}/{plain}")

    def is_below(self, root: Url) -> bool:
        """Return whether this URL lies below a root, however a server may read it."""
        folder = root.path.rstrip("/") + "/"
        same = (self.scheme, self.host) == (root.scheme, root.host)
        return same and self.path.startswith(folder) and not escapes_root(self.path)


def joins_urls(text: str) -> bool:
    """Tell whether a URL leads into another one, as fsspec writes it; "::" alone is a name's."""
    inner = text.partition("://")[2]
    return is_chain(text) or ("::" in inner and "://" in inner)


def escapes_root(path: str) -> bool:
    """Return whether a server might leave the folder: by `.` or `..`, encoded any number of times.

    Some servers take a backslash for a slash, and cut a step at its first semicolon.
    """
    if len(path) > _LONGEST:
        return True
    while (plain := unquote(path)) != path:
        path = plain
    steps = re.split(r"[/\\]", path)
    return any(step.split(";")[0].strip() in (".", "..") for step in steps)
