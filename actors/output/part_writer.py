"""Writes what became of a split: its dead letters, then its part."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..batch import Batch, RowError, left_out
from ..empty_answers import EMPTY
from ..faults.attempt_files import AttemptFiles
from ..sources.schemas.hf_features import Features, describe
from ..split import Split
from ..storage.backoff import retry_with_backoff
from ..storage.filesystem import open_filesystem, write_atomic
from ..storage.media_files import holds_files
from .layout import DEAD_LETTERS
from .part_file import append_columns, encode_part, to_ranges


@dataclass
class PartSink:
    """An output folder as the workers see it.

    keep: the input columns that go into the parts; dead letters keep all that were read, but
        for whole files that are not kept.
    footer: what every part's footer says of the job.
    run: of which run; one is made for each.
    features: of `datasets`, of the input columns that have any.
    """

    path: str
    options: dict[str, Any]
    keep: list[str]
    on_error: str
    footer: dict[str, Any]
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    features: Features = field(default_factory=dict)

    def attempts(self) -> AttemptFiles:
        return AttemptFiles(self.path, self.options, self.run)

    def is_done(self, split: Split) -> bool:
        filesystem, root = open_filesystem(self.path, self.options)
        part = f"{root}/{split.part}"
        return retry_with_backoff(lambda: filesystem.exists(part), part)

    def write(self, split: Split, batch: Batch) -> None:
        if batch.failures and self.on_error == "raise":
            row, first = min(batch.failures.items())
            raise RowError(
                f"row {row} of {split.path} failed (output.on_error is raise): "
                f"{first.stage}: {first.error}: {first.message}"
            )
        filesystem, root = open_filesystem(self.path, self.options)
        letters = f"{root}/{DEAD_LETTERS}/{split.part}"
        if batch.failures:
            write_atomic(filesystem, letters, self.dead_letters(split.number, batch))
        elif retry_with_backoff(lambda: filesystem.exists(letters), letters):
            filesystem.rm_file(letters)  # of an attempt that died before it wrote the part
        assert batch.results is not None
        part = append_columns(batch.rows.select(self.keep), batch.results)
        if self.features:  # under the names that the part has
            names = zip(self.keep, part.column_names, strict=False)
            known = {new: self.features[old] for old, new in names if old in self.features}
            part = part.replace_schema_metadata(describe(part.schema, known) if known else None)
        if self.on_error != "null":
            part = part.take(pa.array(batch.ok_rows()))
        notes = {
            **self.footer,
            "split": split.number,
            "rows": batch.rows.num_rows,
            "dead": len(batch.failures),
            "dead_rows": to_ranges(sorted(batch.failures)),
            "truncated_rows": int(batch.work.get("truncated_rows", 0)),
            "lost_tokens": int(batch.work.get("lost_tokens", 0)),
            **({"left_out": keys} if (keys := left_out(batch.work)) else {}),
            "tokens": int(batch.work.get("tokens", 0)),
            "padded_tokens": int(batch.work.get("padded_tokens", 0)),
            **{name: int(batch.work[name]) for name in EMPTY if name in batch.work},
        }
        write_atomic(filesystem, f"{root}/{split.part}", encode_part(part, notes))

    def dead_letters(
        self,
        split: int,
        batch: Batch,
        numbers: dict[int, int] | None = None,
        attempts: dict[int, int] | None = None,
    ) -> bytes:
        """The file of them.

        numbers: of the batch's rows in the split, where they are not all of it.
        attempts: how often each row of the split, by its number, was tried; once without.
        """
        places = np.array(sorted(batch.failures))
        failures = [batch.failures[place] for place in places]
        rows = [int(place) if numbers is None else numbers[place] for place in places]
        why = pa.table(
            {
                "split": pa.array([split] * len(rows), pa.int64()),
                "row": pa.array(rows, pa.int64()),
                "stage": [failure.stage for failure in failures],
                "error": [failure.error for failure in failures],
                "message": [failure.message for failure in failures],
                "attempts": pa.array([(attempts or {}).get(row, 1) for row in rows], pa.int32()),
            }
        )
        told = [f.name for f in batch.rows.schema if f.name in self.keep or not holds_files(f)]
        table = append_columns(batch.rows.select(told).take(pa.array(places)), why)
        return encode_part(table, {"split": split})
