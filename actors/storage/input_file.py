"""An input file as a listing found it."""

from __future__ import annotations

import os
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

    def check_size(self, may_grow: bool) -> None:
        """Raise ValueError if a local file has another size now. Stores are not asked once more.

        The time is not compared: another machine may have its own copy.

        may_grow: whether what is added at its end leaves what was planned as it is.
        """
        if "://" in self.path or not self.version:
            return
        try:
            size = os.stat(self.path).st_size
        except OSError:  # reading it will say why
            return
        if size < self.size or (size > self.size and not may_grow):
            raise ValueError(f"{self.path} has changed since it was planned: run again")
