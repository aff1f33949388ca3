"""A split's dead rows read again, and their answers put into its part.

The part is written before its dead letters: at every moment each row is in the part, or in the
letters. Killed in between, the letters still name rows that have an answer; which they are, the
part's footer says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..batch import Batch
from ..sources import Source
from ..split import Split
from ..storage.filesystem import open_filesystem, write_atomic
from .layout import DEAD_LETTERS
from .part_file import append_columns, encode_part, from_ranges, read_footer, to_ranges
from .part_writer import PartSink

# The number of each row in its split, on its way through the stages.
ROW = "_pipemill/row"


@dataclass
class PartRewriter(PartSink):
    """The output, for answers to rows that were dead letters."""

    def is_done(self, split: Split) -> bool:
        return not self.notes(split)["dead"]

    def notes(self, split: Split) -> dict[str, Any]:
        filesystem, root = open_filesystem(self.path, self.options)
        with filesystem.open(f"{root}/{split.part}", "rb") as file:
            return read_footer(file)

    def write(self, split: Split, batch: Batch) -> None:
        filesystem, root = open_filesystem(self.path, self.options)
        name, letters = f"{root}/{split.part}", f"{root}/{DEAD_LETTERS}/{split.part}"
        with filesystem.open(name, "rb") as file:
            notes = read_footer(file)
            file.seek(0)
            part = pq.read_table(file)
        # Arrow may hand the footer's notes on as the schema's.
        others = {k: v for k, v in (part.schema.metadata or {}).items() if k != b"pipemill"}
        part = part.replace_schema_metadata(others or None)
        numbers = batch.rows[ROW].to_numpy()
        # A worker that is late finds rows answered that it tried, too.
        dead = np.intersect1d(from_ranges(notes["dead_rows"]), numbers)
        live = batch.ok_rows()
        live = live[np.isin(numbers[live], dead)]
        if len(live):
            notes.pop("digest")
            part, notes = self._mended(part, notes, batch, live)
            write_atomic(filesystem, name, encode_part(part, notes))
        attempts = _attempts(filesystem, letters)
        batch.failures = {
            place: failure for place, failure in batch.failures.items() if numbers[place] in dead
        }
        if batch.failures:
            tried = {int(row): attempts.get(int(row), 1) + 1 for row in numbers}
            of_place = {place: int(numbers[place]) for place in batch.failures}
            batch.rows = batch.rows.drop_columns(ROW)
            data = self.dead_letters(split.number, batch, of_place, tried)
            write_atomic(filesystem, letters, data)
        elif filesystem.exists(letters):
            filesystem.rm_file(letters)

    def _mended(
        self, part: pa.Table, notes: dict[str, Any], batch: Batch, live: np.ndarray
    ) -> tuple[pa.Table, dict[str, Any]]:
        """The part with the answers of the batch's rows `live`, and what its footer says then."""
        assert batch.results is not None
        new = append_columns(batch.rows.select(self.keep), batch.results).take(pa.array(live))
        answered = batch.rows[ROW].to_numpy()[live]
        dead = from_ranges(notes["dead_rows"])
        there = np.arange(notes["rows"])
        if self.on_error != "null":
            there = np.setdiff1d(there, dead)
        stays = ~np.isin(there, answered)  # a row of nulls gives its place up
        # As the part holds it: Parquet has no times in seconds, among others.
        new = pq.read_table(pa.BufferReader(encode_part(new, {}))).replace_schema_metadata(None)
        _check_columns(part.schema, new.schema)
        whole = pa.concat_tables([part.filter(pa.array(stays)), new])
        order = np.argsort(np.concatenate([there[stays], answered]), kind="stable")
        left = np.setdiff1d(dead, answered)
        retried = dict(notes.get("retried", {}))
        own = self.footer["fingerprint"]
        if own != notes["fingerprint"]:
            before = from_ranges(retried.get(own, []))
            retried[own] = to_ranges(np.union1d(before, answered))
        return whole.take(pa.array(order)).combine_chunks(), {
            **notes,
            "dead": len(left),
            "dead_rows": to_ranges(left),
            **{
                name: notes.get(name, 0) + int(batch.work.get(name, 0))
                for name in ("truncated_rows", "lost_tokens", "nan_rows", "null_answers")
            },
            **({"retried": retried} if retried else {}),
        }


@dataclass
class DeadRowSource:
    """Reads of a split the rows that are dead, with their numbers in the split."""

    source: Source
    sink: PartRewriter

    def read(self, split: Split) -> Batch:
        notes = self.sink.notes(split)
        numbers = from_ranges(notes["dead_rows"])
        whole = self.source.read(split)
        if whole.rows.num_rows != notes["rows"]:
            raise ValueError(
                f"it had {notes['rows']} rows, and has {whole.rows.num_rows} now: put the old "
                "input back"
            )
        rows = whole.rows.take(pa.array(numbers))
        batch = Batch(rows.append_column(ROW, pa.array(numbers)))
        place = {int(number): i for i, number in enumerate(numbers)}
        batch.failures = {
            place[row]: failure for row, failure in whole.failures.items() if row in place
        }
        return batch


def _attempts(filesystem: Any, letters: str) -> dict[int, int]:
    """How often each row was tried, so far as there are letters that say it."""
    try:
        with filesystem.open(letters, "rb") as file:
            table = pq.read_table(file, columns=["row", "attempts"])
    except (OSError, pa.ArrowException):
        return {}
    return dict(zip(table["row"].to_pylist(), table["attempts"].to_pylist(), strict=True))


def _check_columns(old: pa.Schema, new: pa.Schema) -> None:
    if old != new:
        raise ValueError(
            f"the answers have the columns {', '.join(map(str, new))}, and the part has "
            f"{', '.join(map(str, old))}: retry with parameters that give those"
        )
