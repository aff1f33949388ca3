"""Write what became of a split: its dead letters, then its part."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..arrow_arrays import take_rows
from ..batch import Batch, RowError, left_out
from ..faults.attempt_files import AttemptFiles
from ..sources.schemas.hf_features import Features, make_metadata
from ..sources.schemas.media_columns import holds_files
from ..split import Split
from ..storage.partitions import FOLDER
from ..storage.store import Store
from .layout import LEASE, list_lease_numbers, name_lease
from .part_file import append_columns, encode_part, to_ranges
from .part_footer import ROW_COUNTS, TOKEN_COUNTS, DeadLetterFooter, PartFooter
from .state_table import dead_letters


class LeaseLost(RuntimeError):
    """The run of this worker may not write any more."""


@dataclass
class PartSink:
    """An output folder as the workers see it.

    Attributes:
        store: the output folder.
        keep: the input columns that go into the parts. Dead letters keep all columns that were
            read, except whole files that are not kept.
        on_error: as in `output.on_error`.
        job, fingerprint: of the job, for the footers of parts.
        run: which run writes; each run gets a new one.
        features: of `datasets`, for the input columns that have any.
        lease: the number of the lease under which the run writes; 0 without one.
    """

    store: Store
    keep: list[str]
    on_error: str
    job: str = ""
    fingerprint: str = ""
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    features: Features = field(default_factory=dict)
    lease: int = 0

    @property
    def name(self) -> str:
        """Return a short name of the output."""
        return self.store.path.rstrip("/").rsplit("/", 1)[-1]

    def attempts(self) -> AttemptFiles:
        return AttemptFiles(self.store, self.run)

    def is_done(self, split: Split) -> bool:
        return self.store.exists(split.part)

    def check_lease(self) -> None:
        """Raise LeaseLost if another run has taken over: its plan may have no such part."""
        if not self.lease or self.store.exists(name_lease(self.lease)):
            return
        # A store that replaces a file in two steps may have none for a moment.
        with suppress(FileNotFoundError):
            if max(list_lease_numbers(self.store.list_names(LEASE)), default=0) > self.lease:
                raise LeaseLost(f"another run has taken over {self.store.path}")

    def write(self, split: Split, batch: Batch) -> None:
        self.check_lease()
        footer = self._make_footer(split, batch)
        if batch.failures and self.on_error == "raise":
            row, first = min(batch.failures.items())
            place = split.place if split.start else split.path
            if split.bundle:
                place, row = footer.find_row(split, row)
            raise RowError(f"row {row} of {place} failed (output.on_error is raise): {first}")
        letters = dead_letters(self.store, split.part)
        if batch.failures:
            letters.write(self.encode_dead_letters(split.number, batch))
        else:
            letters.remove()  # an attempt may have died before it wrote the part
        self.store.write(split.part, encode_part(self._make_part(batch), footer))

    def _make_part(self, batch: Batch) -> pa.Table:
        assert batch.results is not None
        part = append_columns(batch.rows.select(self.keep), batch.results)
        if self.features:  # under the names that the part has
            names = zip(self.keep, part.column_names, strict=False)
            known = {new: self.features[old] for old, new in names if old in self.features}
            part = part.replace_schema_metadata(
                make_metadata(part.schema, known) if known else None
            )
        if self.on_error != "null":
            part = take_rows(part, batch.ok_rows())
        return part

    def _make_footer(self, split: Split, batch: Batch) -> PartFooter:
        names = (*ROW_COUNTS, *TOKEN_COUNTS)
        counts: dict[str, Any] = {name: int(batch.stats.get(name, 0)) for name in names}
        return PartFooter(
            job=self.job,
            fingerprint=self.fingerprint,
            split=split.number,
            rows=batch.rows.num_rows,
            dead=len(batch.failures),
            dead_rows=to_ranges(sorted(batch.failures)),
            left_out=left_out(batch.stats) or {},
            file_rows=batch.file_rows,
            **counts,
        )

    def encode_dead_letters(
        self,
        split: int,
        batch: Batch,
        numbers: Mapping[int, int] | None = None,
        attempts: Mapping[int, int] | None = None,
    ) -> bytes:
        """Return the bytes of the file of dead letters.

        Args:
            split: the number of the split.
            batch: rows of which some failed.
            numbers: the number in the split of each row of the batch; None if it is the same.
            attempts: how often each row was tried, by its number in the split; None means once.
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
        names = [
            f.name
            for f in batch.rows.schema
            if f.name in self.keep or not (holds_files(f) or f.name == FOLDER)
        ]
        table = append_columns(batch.rows.select(names).take(pa.array(places)), why)
        return encode_part(table, DeadLetterFooter(split))
