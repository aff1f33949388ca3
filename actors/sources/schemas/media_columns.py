"""Tell images, audio and video by their suffix, and mark the columns that hold them."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

# Also suffixes of files that can't be decoded everywhere: a dead letter says more than no row.
MEDIA_KINDS = {
    kind: tuple(suffixes.split())
    for kind, suffixes in {
        "image": "jpg jpeg png gif bmp tif tiff webp jfif jpe jp2 avif heic heif pbm pgm ppm",
        "audio": "wav mp3 flac ogg opus m4a aac oga aif aiff aifc wma amr caf w64 sph",
        "video": "mp4 mov avi mkv webm m4v mpg mpeg wmv flv 3gp ogv",
    }.items()
}
MEDIA_SUFFIXES = tuple(f".{end}" for ends in MEDIA_KINDS.values() for end in ends)
# Marks a column of whole files, since keeping it would copy the dataset into the output.
_WHOLE_FILES = {b"pipemill": b"files"}
_ALONE, _MEMBERS, _SEVERAL = b"alone", b"members", b"several"


def find_media_kind(name: str) -> str | None:
    """Return "image", "audio" or "video" by a name's last suffix in any case, or None."""
    end = name.rpartition(".")[2].lower()
    return next((kind for kind, ends in MEDIA_KINDS.items() if end in ends), None)


def make_files_column(name: str, kinds: Iterable[str] = ()) -> pa.Field:
    """Return a column of whole files. kinds: the kinds of media, if known."""
    notes = {**_WHOLE_FILES, b"kinds": ",".join(sorted(kinds)).encode()}
    return pa.field(name, pa.large_binary(), metadata=notes)


def holds_files(field: pa.Field) -> bool:
    """Tell whether a column holds whole files."""
    return (field.metadata or {}).get(b"pipemill") == b"files"


def make_member_column(extension: str, alone: bool) -> pa.Field:
    """Return a column of a shard's members.

    alone: whether no sample has another member of its kind of media.
    """
    field = make_files_column(extension)
    return field.with_metadata({**field.metadata, _ALONE: b"yes"}) if alone else field


def merge_columns(schema: pa.Schema, named: Iterable[str]) -> list[pa.Field]:
    """Return columns that hold, of several extensions, the one member that each sample has.

    There is one for each kind of media of which no sample has two members, named by the kind; and
    one for each name of several extensions ("jpg;png"), which takes the first member that exists.
    """
    merged = []
    for kind, ends in MEDIA_KINDS.items():
        fields = [f for f in schema if holds_files(f) and find_media_kind(f.name) == kind]
        alone = [f.name in ends and _ALONE in f.metadata for f in fields]
        if fields and all(alone) and not {kind, "bytes"} & set(schema.names):
            field = make_files_column(kind, [kind])
            merged.append(_mark_members(field, ends, several=False))
    for name in named:
        ends = tuple(name.split(";"))
        known = [schema.field(end) for end in ends if end in schema.names]
        if len(ends) > 1 and name not in schema.names and known:
            field = pa.field(name, known[0].type, metadata=known[0].metadata)
            if all(other.type == field.type for other in known):
                merged.append(_mark_members(field, ends, several=True))
    return merged


def list_members(field: pa.Field) -> tuple[str, ...]:
    """Return the extensions that a merged column takes members of; none for another column."""
    names = (field.metadata or {}).get(_MEMBERS)
    return tuple(names.decode().split(";")) if names else ()


def takes_first(field: pa.Field) -> bool:
    """Tell whether a merged column takes the first of several members in a sample."""
    return (field.metadata or {}).get(_SEVERAL) == b"first"


def _mark_members(field: pa.Field, ends: Iterable[str], several: bool) -> pa.Field:
    notes = {**(field.metadata or {}), _MEMBERS: ";".join(ends).encode()}
    notes[_SEVERAL] = b"first" if several else b"refused"
    return field.with_metadata(notes)


def find_media_columns(kind: str, schema: pa.Schema) -> list[str]:
    """Return the columns that may hold a task's input of a kind, if the user names none."""
    if "bytes" in schema.names:
        metadata = schema.field("bytes").metadata or {}
        kinds = metadata.get(b"kinds", b"").decode()
        return ["bytes"] if kind in kinds.split(",") or not kinds else []
    merged = [f.name for f in schema if list_members(f) and f.name == kind]
    return merged or [f.name for f in schema if holds_files(f) and find_media_kind(f.name) == kind]
