"""What pipemill writes into the Parquet footers of parts and of dead letters."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..compute.empty_answers import EMPTY
from ..split import Split

# Row numbers in ascending order: start and stop of each range, one after the other. There may be
# millions of them on a driver. Files have them in pairs.
Ranges: TypeAlias = "array[int]"
# Shared by a million footers, and never changed.
_NO_RANGES: Ranges = array("q")
_NOTHING: dict[str, Any] = {}
# Fields that count, named as in `Batch.work`. A retry adds to the first ones.
ROW_COUNTS = ("truncated_rows", "lost_tokens", *EMPTY)
TOKEN_COUNTS = ("tokens", "padded_tokens")


@dataclass(frozen=True, kw_only=True)
class PartFooter:
    """What a part says about itself. Older parts lack the fields that have defaults.

    Attributes:
        job: the task.
        fingerprint: of the job, as in job.json.
        split: the number of the split.
        rows, dead: rows of the split, and how many of them are dead letters.
        dead_rows: their numbers in the split.
        truncated_rows, lost_tokens: rows whose text was truncated, and the tokens that were cut.
        left_out: how many rows had a value that no column holds, by its key.
        tokens, padded_tokens: tokens that were computed, without and with padding.
        nan_rows, null_answers: rows done with a number that is not finite, or without an answer.
        file_rows: of a bundle of files with rows, how many each of them has.
        retried: rows that a retry computed with other settings, by the fingerprint of these.
        unknown: fields of newer versions, which stay when the part is written again.
    """

    job: str
    fingerprint: str
    split: int
    rows: int
    dead: int
    dead_rows: Ranges = field(default_factory=lambda: _NO_RANGES)
    truncated_rows: int = 0
    lost_tokens: int = 0
    left_out: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    tokens: int = 0
    padded_tokens: int = 0
    nan_rows: int = 0
    null_answers: int = 0
    file_rows: Sequence[int] = ()
    retried: Mapping[str, Ranges] = field(default_factory=lambda: _NOTHING)
    unknown: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    def count_file_rows(self, split: Split) -> Sequence[int]:
        """Return how many rows each file of the split has."""
        return self.file_rows or ((1,) * len(split.bundle) if split.bundle else (self.rows,))

    def find_row(self, split: Split, row: int) -> tuple[str, int]:
        """Return the file of a row of the split, and how many rows of that are before it there."""
        for file, count in zip(split.files(), self.count_file_rows(split), strict=True):
            if row < count:
                return file.path, row
            row -= count
        raise IndexError(f"{split.part} has {row + 1} rows fewer")

    def to_json(self) -> dict[str, Any]:
        fields = dict(vars(self))
        unknown = fields.pop("unknown")
        fields["dead_rows"] = _to_pairs(self.dead_rows)
        fields["retried"] = {name: _to_pairs(rows) for name, rows in self.retried.items()}
        for name in ("left_out", "nan_rows", "null_answers", "file_rows", "retried"):
            if not fields[name]:
                del fields[name]
        return {**unknown, **fields}

    @classmethod
    def from_json(cls, notes: Mapping[str, Any]) -> PartFooter:
        """Read a footer. Raises TypeError, ValueError if it is not the footer of a part."""
        unknown = {name: notes[name] for name in notes.keys() - _KNOWN}
        fields = {name: notes[name] for name in notes.keys() - unknown.keys()}
        if "dead_rows" in fields:
            fields["dead_rows"] = _from_pairs(fields["dead_rows"])
        if "retried" in fields:
            retried = fields["retried"].items()
            fields["retried"] = {name: _from_pairs(pairs) for name, pairs in retried}
        for name in ("job", "fingerprint"):
            if isinstance(fields.get(name), str):
                fields[name] = sys.intern(fields[name])
        return cls(**fields, unknown=unknown or _NOTHING)


_KNOWN = PartFooter.__dataclass_fields__.keys() - {"unknown"}


@dataclass(frozen=True)
class DeadLetterFooter:
    """What a file of dead letters says about itself: the number of its split."""

    split: int

    def to_json(self) -> dict[str, Any]:
        return {"split": self.split}


Footer = PartFooter | DeadLetterFooter


def read_footer_json(notes: Mapping[str, Any]) -> Footer:
    """Read the footer of either file. Raises TypeError, KeyError if it is neither."""
    if "fingerprint" in notes:
        return PartFooter.from_json(notes)
    return DeadLetterFooter(notes["split"])


def _from_pairs(pairs: Iterable[Iterable[int]]) -> Ranges:
    """Return the ranges of [start, stop) pairs, as files have them."""
    return array("q", (end for start, stop in pairs for end in (start, stop))) or _NO_RANGES


def _to_pairs(ranges: Ranges) -> list[tuple[int, int]]:
    return list(zip(ranges[::2], ranges[1::2], strict=True))
