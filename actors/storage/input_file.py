"""An input file as a listing found it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

# The names and values of folders such as `lang=en/`.
Partitions: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of the input.

    Attributes:
        path: an absolute path, or a URL.
        size: bytes; 0 if its server does not say.
        version: an etag or a time, which changes when the file does.
        partitions: of the folders between the listed path and the file.
    """

    path: str
    size: int
    version: str
    partitions: Partitions = field(default=(), compare=False)
