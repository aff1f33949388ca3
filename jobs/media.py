"""Which names are those of images, audio and video, and which columns hold them."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

KINDS = {
    "image": ("jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp"),
    "audio": ("wav", "mp3", "flac", "ogg", "opus", "m4a", "aac"),
    "video": ("mp4", "mov", "avi", "mkv", "webm", "m4v"),
}
SUFFIXES = tuple(f".{end}" for ends in KINDS.values() for end in ends)
# Marks a column that holds whole files: to keep it would copy the dataset into the output.
_WHOLE_FILES = {b"pipemill": b"files"}


def kind_of(name: str) -> str | None:
    """ "image", "audio" or "video" by what follows the last dot, in any case."""
    end = name.rpartition(".")[2].lower()
    return next((kind for kind, ends in KINDS.items() if end in ends), None)


def files_column(name: str, kinds: Iterable[str] = ()) -> pa.Field:
    """A column of whole files, of these kinds so far as is known."""
    notes = {**_WHOLE_FILES, b"kinds": ",".join(sorted(kinds)).encode()}
    return pa.field(name, pa.large_binary(), metadata=notes)


def holds_files(field: pa.Field) -> bool:
    return (field.metadata or {}).get(b"pipemill") == b"files"


def media_columns(kind: str, schema: pa.Schema) -> list[str]:
    """The columns in which a task's input of this kind is looked for when the user names none."""
    if "bytes" in schema.names:
        notes = schema.field("bytes").metadata or {}
        kinds = notes.get(b"kinds", b"").decode()
        return ["bytes"] if kind in kinds.split(",") or not kinds else []
    return [f.name for f in schema if holds_files(f) and kind_of(f.name) == kind]
