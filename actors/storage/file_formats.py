"""The formats of input files, and how they are told from a file's name."""

from __future__ import annotations

import inspect
import re
from functools import lru_cache

from fsspec import get_filesystem_class

from . import media_files

SUFFIXES: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv", ".tsv"),
    "text": (".txt",),
    "arrow": (".arrow",),
    "webdataset": (".tar", ".tgz"),
    "files": media_files.SUFFIXES,
}
_FORMATS = {suffix: format for format, suffixes in SUFFIXES.items() for suffix in suffixes}
COMPRESSED = ("jsonl", "csv", "text", "webdataset")
COMPRESSIONS = (".gz", ".zst")


def format_of(path: str) -> str | None:
    """None where the name does not tell."""
    name = member_of(path).lower()
    for end in COMPRESSIONS:
        if name.endswith(end):
            format = _FORMATS.get(_suffix(name.removesuffix(end)))
            return format if format in COMPRESSED else None
    return _FORMATS.get(_suffix(name))


def compression_of(path: str) -> str | None:
    """As fsspec names it."""
    return {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd"}.get(_suffix(member_of(path).lower()))


def member_of(path: str) -> str:
    """Of a file in another file (zip://member::s3://bucket/archive.zip) its own part."""
    if "::" not in path or not is_chain(path) or "://" not in path.partition("::")[0]:
        return path
    cuts = [match.start() for match in re.finditer("::", path)]
    # A member's own name may hold "::"; the archive's begins like a path or a URL.
    cut = next((cut for cut in cuts if _is_place(path[cut + 2 :])), cuts[-1])
    return path[:cut]


def is_chain(path: str) -> bool:
    """Whether "::" in a path joins URLs, as fsspec has it, and is no part of a file's name.

    It does behind a protocol that reads another's files, such as zip and simplecache.
    """
    head, joint, _ = path.partition("::")
    protocol = head.partition("://")[0]
    return bool(joint) and re.fullmatch("[a-z0-9+.-]+", protocol) is not None and _joins(protocol)


def _is_place(path: str) -> bool:
    return bool(re.match(r"[/~]|[A-Za-z][A-Za-z0-9+.-]*://", path)) or is_chain(path)


@lru_cache
def _joins(protocol: str) -> bool:
    try:
        reader = get_filesystem_class(protocol)
    except ImportError:  # known, but not installed here
        return True
    except ValueError:
        return False
    makers = [vars(kind)["__init__"] for kind in reader.__mro__ if "__init__" in vars(kind)]
    taken = {name for make in makers[:-1] for name in inspect.signature(make).parameters}
    return bool({"fo", "target_protocol"} & taken)


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:] if dot > name.rfind("/") else ""
