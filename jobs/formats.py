"""The formats of input files, and how they are told from a file's name."""

from __future__ import annotations

from . import media

SUFFIXES: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv", ".tsv"),
    "text": (".txt",),
    "arrow": (".arrow",),
    "webdataset": (".tar", ".tgz"),
    "files": media.SUFFIXES,
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
    inside, _, container = path.partition("::")
    return inside if container and "://" in inside else path


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:] if dot > name.rfind("/") else ""
