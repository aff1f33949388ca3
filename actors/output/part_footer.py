"""What pipemill writes into the Parquet footers of parts and of dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..compute.empty_answers import EMPTY

# Row numbers in ascending order, as [start, stop) pairs.
Ranges = list[list[int]]
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
        retried: rows that a retry computed with other settings, by the fingerprint of these.
        unknown: fields of newer versions, which stay when the part is written again.
    """

    job: str
    fingerprint: str
    split: int
    rows: int
    dead: int
    dead_rows: Ranges = field(default_factory=list)
    truncated_rows: int = 0
    lost_tokens: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    padded_tokens: int = 0
    nan_rows: int = 0
    null_answers: int = 0
    retried: Mapping[str, Ranges] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        fields = dict(vars(self))
        unknown = fields.pop("unknown")
        for name in ("left_out", "nan_rows", "null_answers", "retried"):
            if not fields[name]:
                del fields[name]
        return {**unknown, **fields}

    @classmethod
    def from_json(cls, notes: Mapping[str, Any]) -> PartFooter:
        """Read a footer. Raises TypeError if it is not the footer of a part."""
        unknown = {name: notes[name] for name in notes.keys() - _KNOWN}
        return cls(**{n: notes[n] for n in notes.keys() - unknown.keys()}, unknown=unknown)


_KNOWN = PartFooter.__dataclass_fields__.keys() - {"unknown"}


@dataclass(frozen=True)
class DeadLetterFooter:
    """What a file of dead letters says about itself: the number of its split."""

    split: int

    def to_json(self) -> dict[str, Any]:
        return {"split": self.split}


Footer = PartFooter | DeadLetterFooter


def footer_from_json(notes: Mapping[str, Any]) -> Footer:
    """Read the footer of either file. Raises TypeError, KeyError if it is neither."""
    if "fingerprint" in notes:
        return PartFooter.from_json(notes)
    return DeadLetterFooter(notes["split"])
