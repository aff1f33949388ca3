"""Read the dead rows of a split again, and put their answers into its part.

The part is written before its dead letters: at every moment each row is in the part, or in the
letters. If the process is killed in between, the letters still name rows that have an answer; the
footer of the part says which.
"""

from __future__ import annotations

import io
from array import array
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..batch import Batch
from ..split import Split, SplitReader
from .part_file import append_columns, encode_part, from_ranges, read_footer, to_ranges
from .part_footer import ROW_COUNTS, PartFooter, Ranges
from .part_writer import PartSink
from .state_table import StateTable, dead_letters

# The number of each row in its split, on its way through the stages.
ROW = "_pipemill/row"


@dataclass
class PartRewriter(PartSink):
    """The output, for answers to rows that were dead letters."""

    def is_done(self, split: Split) -> bool:
        return not self.read_footer(split).dead

    def read_footer(self, split: Split) -> PartFooter:
        with self.store.open(split.part) as file:
            return read_footer(file)

    def write(self, split: Split, batch: Batch) -> None:
        self.check_lease()
        footer, part = self._read_part(split)
        numbers = batch.rows[ROW].to_numpy()
        # A late worker may have tried rows that got an answer in the meantime.
        dead = np.intersect1d(from_ranges(footer.dead_rows), numbers)
        is_dead = np.isin(numbers, dead)
        live = batch.ok_rows()
        live = live[is_dead[live]]
        if len(live):
            part = self._add_answers(part, footer, batch, live)
            footer = self._update_footer(footer, batch, numbers[live])
            self.store.write(split.part, encode_part(part, footer))
        batch.failures = {row: why for row, why in batch.failures.items() if is_dead[row]}
        self._write_dead_letters(split, batch, numbers)

    def _read_part(self, split: Split) -> tuple[PartFooter, pa.Table]:
        with self.store.open(split.part) as file:
            footer = read_footer(file)
            file.seek(0)
            part = pq.read_table(file)
        # Arrow may return the entries of the footer as those of the schema.
        others = {k: v for k, v in (part.schema.metadata or {}).items() if k != b"pipemill"}
        return footer, part.replace_schema_metadata(others or None)

    def _write_dead_letters(self, split: Split, batch: Batch, numbers: np.ndarray) -> None:
        letters = dead_letters(self.store, split.part)
        if batch.failures:
            before = self._count_attempts(letters)
            attempts = {int(row): before.get(int(row), 1) + 1 for row in numbers}
            of_place = {place: int(numbers[place]) for place in batch.failures}
            batch.rows = batch.rows.drop_columns(ROW)
            letters.write(self.encode_dead_letters(split.number, batch, of_place, attempts))
        else:
            letters.remove()

    def _count_attempts(self, letters: StateTable) -> dict[int, int]:
        """Return how often each row was tried, as far as letters are there that say it."""
        try:
            with letters.open() as file:
                table = pq.read_table(file, columns=["row", "attempts"])
        except (OSError, pa.ArrowException):
            return {}
        return dict(zip(table["row"].to_pylist(), table["attempts"].to_pylist(), strict=True))

    def _add_answers(
        self, part: pa.Table, footer: PartFooter, batch: Batch, live: np.ndarray
    ) -> pa.Table:
        """Return the part with the answers of the rows `live` of the batch."""
        assert batch.results is not None
        new = append_columns(batch.rows.select(self.keep), batch.results).take(pa.array(live))
        answered = batch.rows[ROW].to_numpy()[live]
        there = np.arange(footer.rows)
        if self.on_error != "null":
            there = np.setdiff1d(there, from_ranges(footer.dead_rows))
        stays = ~np.isin(there, answered)  # an answer takes the place of a row of nulls
        new = _cast_as_parquet(new)
        _check_columns(part.schema, new.schema)
        whole = pa.concat_tables([part.filter(pa.array(stays)), new])
        order = np.argsort(np.concatenate([there[stays], answered]), kind="stable")
        return whole.take(pa.array(order)).combine_chunks()

    def _update_footer(self, footer: PartFooter, batch: Batch, answered: np.ndarray) -> PartFooter:
        """Return the footer of the part once the rows `answered` are in it."""
        left = np.setdiff1d(from_ranges(footer.dead_rows), answered)
        counts = {
            name: getattr(footer, name) + int(batch.stats.get(name, 0)) for name in ROW_COUNTS
        }
        return replace(
            footer,
            dead=len(left),
            dead_rows=to_ranges(left),
            retried=self._add_retried(footer, answered),
            **counts,
        )

    def _add_retried(self, footer: PartFooter, answered: np.ndarray) -> dict[str, Ranges]:
        retried = dict(footer.retried)
        if self.fingerprint != footer.fingerprint:
            before = from_ranges(retried.get(self.fingerprint, array("q")))
            retried[self.fingerprint] = to_ranges(np.union1d(before, answered))
        return retried


@dataclass
class DeadRowSource:
    """Reads the rows of a split that are dead, with their numbers in the split."""

    source: SplitReader
    sink: PartRewriter

    def read(self, split: Split) -> Batch:
        footer = self.sink.read_footer(split)
        numbers = from_ranges(footer.dead_rows)
        whole = self.source.read(split)
        if whole.rows.num_rows != footer.rows:
            raise ValueError(
                f"it had {footer.rows} rows, and has {whole.rows.num_rows} now: put the old input "
                "back"
            )
        rows = whole.rows.take(pa.array(numbers))
        batch = Batch(rows.append_column(ROW, pa.array(numbers)), lacking=whole.lacking)
        place = {int(number): i for i, number in enumerate(numbers)}
        batch.failures = {
            place[row]: failure for row, failure in whole.failures.items() if row in place
        }
        return batch


def _cast_as_parquet(table: pa.Table) -> pa.Table:
    """Return the table with the types of a part: Parquet has no times in seconds, for example."""
    file = io.BytesIO()
    pq.write_table(table, file)
    return pq.read_table(pa.BufferReader(file.getvalue())).replace_schema_metadata(None)


def _check_columns(old: pa.Schema, new: pa.Schema) -> None:
    if old != new:
        raise ValueError(
            f"the answers have the columns {', '.join(map(str, new))}, and the part has "
            f"{', '.join(map(str, old))}: retry with parameters that give those"
        )
