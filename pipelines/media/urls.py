"""Whether one URL lies below another, however it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

_WEB = ("http", "https")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LONGEST = 16384


@dataclass(frozen=True)
class Url:
    """A URL in three pieces that, joined, are the URL again.

    place: host and port, or bucket, with user and password if it has them: two places are the
        same only if all of that is. path: up to the query. query: the rest, without a fragment.
    """

    scheme: str
    place: str
    path: str
    query: str = ""

    @classmethod
    def parse(cls, text: str) -> Url:
        scheme, rest = text.split("://", 1)
        scheme = scheme.lower()
        if scheme not in _WEB:
            # In an object's name, ? and # are letters like others.
            place, slash, path = rest.partition("/")
            return cls(scheme, place, slash + path)
        found = re.fullmatch(r"([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", rest, re.DOTALL)
        assert found  # each piece may be empty
        place, path, query = found[1], found[2], found[3]
        place = place.lower().removesuffix(_DEFAULT_PORTS[scheme])
        return cls(scheme, place, path, query or "")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}{self.path}{self.query}"

    def join(self, path: str) -> Url:
        """The URL of a relative path below this one."""
        plain = "/".join(part for part in path.split("/") if part != ".")
        if self.scheme in _WEB:
            plain = quote(plain)
        return Url(self.scheme, self.place, f"{self.path.rstrip('/')}/{plain}")

    def is_below(self, root: Url) -> bool:
        folder = root.path.rstrip("/") + "/"
        same = (self.scheme, self.place) == (root.scheme, root.place)
        return same and self.path.startswith(folder) and not escapes_root(self.path)


def escapes_root(path: str) -> bool:
    """Whether a server might leave the folder: `.` or `..` as a step, encoded however often.

    Some servers take a backslash for a slash, and cut a step at its first semicolon.
    """
    if len(path) > _LONGEST:
        return True
    while (plain := unquote(path)) != path:
        path = plain
    steps = re.split(r"[/\\]", path)
    return any(step.split(";")[0].strip() in (".", "..") for step in steps)
