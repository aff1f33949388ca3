"""Read a file's name: its suffix, its compression, and the archive that it lies in."""

from __future__ import annotations

import inspect
import re
from functools import lru_cache

# The suffixes of compressed files, with fsspec's names of what compressed them.
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}


def find_suffix(name: str) -> str:
    """Return a name's last suffix in lower case, such as ".json"; "" if it has none."""
    name = name.lower()
    dot = name.rfind(".")
    return name[dot:] if dot > name.rfind("/") else ""


def find_compression(path: str) -> str | None:
    """Return a file's compression as fsspec names it, or None."""
    return {**COMPRESSIONS, ".tgz": "gzip"}.get(find_suffix(name_of(path)))


def name_of(path: str) -> str:
    """Return a path as its suffix tells the format: a web address without its query.

    One that only the query names stays, as `…/download?file=rows.csv`.
    """
    member = find_member(path)
    if not member.startswith(("http://", "https://")):
        return member
    plain = re.split("[?#]", member, maxsplit=1)[0]
    return plain if find_suffix(plain) else member


def find_member(path: str) -> str:
    """Return a file's own part of a path that leads into another file, such as an archive.

    It is zip://member in zip://member::s3://bucket/archive.zip.
    """
    if "::" not in path or not is_chain(path) or "://" not in path.partition("::")[0]:
        return path
    cuts = [match.start() for match in re.finditer("::", path)]
    # A member's own name may hold "::"; the archive's begins like a path or a URL.
    cut = next((cut for cut in cuts if _is_path_or_url(path[cut + 2 :])), cuts[-1])
    return path[:cut]


def is_chain(path: str) -> bool:
    """Tell whether "::" in a path joins URLs, as in fsspec, and is not part of a file's name.

    It joins them after a protocol that reads another's files, such as zip and simplecache.
    """
    head, joint, _ = path.partition("::")
    protocol = head.partition("://")[0]
    return (
        bool(joint)
        and re.fullmatch("[a-z0-9+.-]+", protocol) is not None
        and _reads_other_files(protocol)
    )


def _is_path_or_url(path: str) -> bool:
    return bool(re.match(r"[/~]|[A-Za-z][A-Za-z0-9+.-]*://", path)) or is_chain(path)


@lru_cache
def _reads_other_files(protocol: str) -> bool:
    # Not at the top: a config is checked with this module, and should be at once.
    from fsspec import get_filesystem_class

    try:
        reader = get_filesystem_class(protocol)
    except ImportError:  # known, but not installed here
        return True
    except ValueError:
        return False
    makers = [vars(kind)["__init__"] for kind in reader.__mro__ if "__init__" in vars(kind)]
    names = {name for make in makers[:-1] for name in inspect.signature(make).parameters}
    return bool({"fo", "target_protocol"} & names)
