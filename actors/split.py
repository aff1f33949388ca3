"""The unit of work: a piece of the input that becomes one part of the output."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Protocol

from .batch import Batch
from .storage.input_file import InputFile

# What identifies a file. Workers derive its partitions from the path.
_FILE = ("path", "size", "version")


@dataclass(frozen=True, slots=True)
class Split:
    """A fixed piece of the input: rows or bytes `start` to `stop` of a file, or a bundle of files.

    Attributes:
        number: its place in the plan.
        path, size, version: of its file. For a bundle: the path of the first file, the size of all
            files together, and a digest of all of them. An empty path means an input without rows.
        start, stop: rows or bytes, as the format counts; a stop of -1 is the end of the file, or of
            the last file of a bundle.
        rows: how many rows it holds; None where only reading shows it.
        bundle: the files of a bundle: one row each if it has a stop, else all rows of each.
        counts: how many rows each file of a bundle has, in formats whose splits are row ranges.
    """

    number: int
    path: str
    size: int
    version: str
    start: int
    stop: int
    rows: int | None = None
    bundle: tuple[InputFile, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def part(self) -> str:
        """Return the name of its one output file. The numbers sort like the input."""
        identity = f"{self.path}|{self.size}|{self.version}|{self.start}|{self.stop}"
        return (
            f"part-{self.number:08d}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.parquet"
        )

    @property
    def place(self) -> str:
        """Return its file or files, and which part of a file if that has an end: for messages."""
        if self.bundle:
            return f"{self.path}{_count_others(self.bundle)}"
        return f"{self.path} [{self.start}:{self.stop}]" if self.stop >= 0 else self.path

    @property
    def file(self) -> InputFile:
        """Return its file; for a bundle one that stands for all."""
        return InputFile(self.path, self.size, self.version)

    def files(self) -> tuple[InputFile, ...]:
        return self.bundle or (self.file,)

    @property
    def has_row_per_file(self) -> bool:
        """Return whether it is a bundle of files that are a row each."""
        return bool(self.bundle) and self.stop >= 0

    def list_file_splits(self) -> list[Split]:
        """Return a split for each file of a bundle of files with rows; none for other splits."""
        if self.has_row_per_file:
            return []
        stops = self.counts or (-1,) * len(self.bundle)
        return [
            Split(self.number, file.path, file.size, file.version, 0, stop)
            for file, stop in zip(self.bundle, stops, strict=True)
        ]

    def to_json(self) -> str:
        bundle = [{name: getattr(file, name) for name in _FILE} for file in self.bundle]
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({**fields, "bundle": bundle})

    @classmethod
    def from_json(cls, text: str) -> Split:
        fields = json.loads(text)
        bundle = tuple(InputFile(**file) for file in fields.pop("bundle", ()))
        counts = tuple(fields.pop("counts", ()))
        return cls(**fields, bundle=bundle, counts=counts)


def _count_others(bundle: tuple[InputFile, ...]) -> str:
    others = len(bundle) - 1
    return f" and {others:,} more file{'s' if others > 1 else ''}" if others else ""


class SplitReader(Protocol):
    """Reads splits on a worker."""

    def read(self, split: Split) -> Batch:
        """Read all rows of a split; a row that can't be read is a failure of the stage "read"."""
