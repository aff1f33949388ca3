"""Which names are those of images, audio and video, and which columns hold them."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

MEDIA_KINDS = {
    "image": ("jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp"),
    "audio": ("wav", "mp3", "flac", "ogg", "opus", "m4a", "aac"),
    "video": ("mp4", "mov", "avi", "mkv", "webm", "m4v"),
}
MEDIA_SUFFIXES = tuple(f".{end}" for ends in MEDIA_KINDS.values() for end in ends)
# Marks a column that holds whole files: to keep it would copy the dataset into the output.
_WHOLE_FILES = {b"pipemill": b"files"}
_ALONE, _MEMBERS, _SEVERAL = b"alone", b"members", b"several"


def media_kind(name: str) -> str | None:
    """ "image", "audio" or "video" by what follows the last dot, in any case."""
    end = name.rpartition(".")[2].lower()
    return next((kind for kind, ends in MEDIA_KINDS.items() if end in ends), None)


def files_column(name: str, kinds: Iterable[str] = ()) -> pa.Field:
    """A column of whole files, of these kinds so far as is known."""
    notes = {**_WHOLE_FILES, b"kinds": ",".join(sorted(kinds)).encode()}
    return pa.field(name, pa.large_binary(), metadata=notes)


def holds_files(field: pa.Field) -> bool:
    return (field.metadata or {}).get(b"pipemill") == b"files"


def member_column(extension: str, alone: bool) -> pa.Field:
    """A column of a shard's members. alone: whether no sample had another one of its kind."""
    field = files_column(extension)
    return field.with_metadata({**field.metadata, _ALONE: b"yes"}) if alone else field


def merged_columns(schema: pa.Schema, named: Iterable[str]) -> list[pa.Field]:
    """Columns that take from each sample the one member that it has of several extensions.

    One for each kind of media of which no sample has two, called by the kind; and those that the
    user calls by several extensions ("jpg;png"), of which a sample's first one is taken.
    """
    merged = []
    for kind, ends in MEDIA_KINDS.items():
        found = [f for f in schema if holds_files(f) and media_kind(f.name) == kind]
        alone = [f.name in ends and _ALONE in f.metadata for f in found]
        if found and all(alone) and not {kind, "bytes"} & set(schema.names):
            field = files_column(kind, [kind])
            merged.append(_of_members(field, ends, several=False))
    for name in named:
        ends = tuple(name.split(";"))
        known = [schema.field(end) for end in ends if end in schema.names]
        if len(ends) > 1 and name not in schema.names and known:
            field = pa.field(name, known[0].type, metadata=known[0].metadata)
            if all(other.type == field.type for other in known):
                merged.append(_of_members(field, ends, several=True))
    return merged


def members_of(field: pa.Field) -> tuple[str, ...]:
    """The extensions of which a column holds one; none for a column of one extension."""
    told = (field.metadata or {}).get(_MEMBERS)
    return tuple(told.decode().split(";")) if told else ()


def takes_first(field: pa.Field) -> bool:
    """Whether the user has said which of several members in one sample is meant."""
    return (field.metadata or {}).get(_SEVERAL) == b"first"


def _of_members(field: pa.Field, ends: Iterable[str], several: bool) -> pa.Field:
    notes = {**(field.metadata or {}), _MEMBERS: ";".join(ends).encode()}
    notes[_SEVERAL] = b"first" if several else b"refused"
    return field.with_metadata(notes)


def find_media_columns(kind: str, schema: pa.Schema) -> list[str]:
    """The columns in which a task's input of this kind is looked for when the user names none."""
    if "bytes" in schema.names:
        notes = schema.field("bytes").metadata or {}
        kinds = notes.get(b"kinds", b"").decode()
        return ["bytes"] if kind in kinds.split(",") or not kinds else []
    merged = [f.name for f in schema if members_of(f) and f.name == kind]
    return merged or [f.name for f in schema if holds_files(f) and media_kind(f.name) == kind]
