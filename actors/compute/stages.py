"""The three functions over one split: expand, forward, regroup. No exception leaves them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow_arrays import check_length, combine_chunks, field_values, offsets_of, scatter
from ..batch import Batch
from ..empty_answers import count_empty
from ..faults.bisect import bisect_failures
from ..task import LoadedTask
from .forward_pass import ForwardPass
from .token_budget import TokenBudget

CHUNKS = "_pipemill_chunks"
OUTPUTS = "_pipemill_outputs"


@dataclass
class Stages:
    """A loaded task over the user's columns.

    columns: the task's column names to the user's.
    budget: of a micro-batch; what one split has shown holds for the next.
    """

    task: LoadedTask
    columns: Mapping[str, str]
    budget: TokenBudget
    # Calls overlap, one on the host while another is on the device. One at a time in each:
    # a fast tokenizer raises "Already borrowed" when two threads use it at once.
    _host: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _device: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _since: float = field(default_factory=time.perf_counter, repr=False)

    def process(self, batch: Batch) -> Batch:
        """All three, in this process."""
        return self.regroup(self.forward(self.expand(batch)))

    def expand(self, batch: Batch) -> Batch:
        """Adds each row's chunks: a list of structs inside the row."""
        with self._host, _timed(batch, "expand"):
            inputs = self._inputs(batch.rows)
            for name in (c.name for c in self.task.inputs if c.required and c.name in self.columns):
                error = ValueError(f"column {self.columns[name]!r} is null")
                for missing in np.flatnonzero(inputs[name].is_null().to_numpy()):
                    batch.add_failure("expand", int(missing), error)
            pieces, failed = bisect_failures(
                batch.ok_rows(),
                lambda rows: check_length(rows, self.task.expand(inputs.take(rows))),
            )
            for row, exception in failed:
                batch.add_failure("expand", row, exception)
        lists = scatter(pieces, batch.rows.num_rows)
        batch.add_stats(**_count_truncated(lists))
        batch.rows = batch.rows.append_column(CHUNKS, lists)
        return batch

    def forward(self, batch: Batch) -> Batch:
        """Replaces the chunks by their outputs, computed in micro-batches across all rows."""
        live = batch.ok_rows()
        lists = combine_chunks(batch.rows[CHUNKS]).take(pa.array(live))
        batch.rows = batch.rows.drop_columns(CHUNKS)
        outputs = pa.nulls(batch.rows.num_rows)
        if len(live):
            chunks, offsets = lists.flatten(), offsets_of(lists)
            with self._device:
                with _timed(batch, "forward"):
                    forward = ForwardPass(self.task, self.budget, chunks)
                    forward.run()
                self._count_actor(batch)
            batch.add_stats(**forward.work)
            row_of_chunk = np.repeat(live, np.diff(offsets))
            for chunk, error in forward.failed:
                batch.add_failure("forward", int(row_of_chunk[chunk]), error)
            if forward.done:
                flat = scatter(forward.done, len(chunks))
                lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
                outputs = scatter([(live, lists)], batch.rows.num_rows)
        batch.rows = batch.rows.append_column(OUTPUTS, outputs)
        return batch

    def _count_actor(self, batch: Batch) -> None:
        """What holds of the actor rather than of this split, in amounts that add up."""
        now = time.perf_counter()
        # From the end of one split's forward pass to the end of the next: calls overlap.
        batch.add_stats(actor_seconds=now - self._since)
        self._since = now
        if self.budget.settled:
            batch.add_stats(**{f"budget_{self.budget.tokens}": 1})

    def regroup(self, batch: Batch) -> Batch:
        """Turns the outputs into the task's result columns; rows that failed hold nulls."""
        outputs = combine_chunks(batch.rows[OUTPUTS])
        batch.rows = batch.rows.drop_columns(OUTPUTS)
        with self._host, _timed(batch, "regroup"):
            inputs, schema = self._inputs(batch.rows), self.task.results()
            pieces, failed = bisect_failures(
                batch.ok_rows(),
                lambda rows: check_length(
                    rows,
                    self.task.regroup(inputs.take(rows), outputs.take(pa.array(rows)))
                    .cast(schema)
                    .to_struct_array(),
                ),
            )
            for row, error in failed:
                batch.add_failure("regroup", row, error)
            structs = scatter(pieces, batch.rows.num_rows, pa.struct(list(schema)))
        columns = [pc.struct_field(structs, i) for i in range(len(schema))]
        batch.results = pa.table(columns, schema=schema)
        batch.add_stats(**count_empty(batch.results, batch.ok_rows()))
        return batch

    def answers(self, batch: Batch) -> list[Any]:
        """What the rows' pipeline returns, of rows that do not fail; for tasks that can tell."""
        batch = self.forward(self.expand(batch))
        inputs, outputs = self._inputs(batch.rows), combine_chunks(batch.rows[OUTPUTS])
        pieces, failed = bisect_failures(
            batch.ok_rows(),
            lambda rows: self.task.answers(inputs.take(rows), outputs.take(pa.array(rows))),  # type: ignore[attr-defined]
        )
        for row, error in failed:
            batch.add_failure("regroup", row, error)
        return [answer for _, found in pieces for answer in found]

    def _inputs(self, rows: pa.Table) -> pa.Table:
        return pa.table({name: rows[column] for name, column in self.columns.items()})


def _count_truncated(lists: pa.Array) -> dict[str, int]:
    """How many rows were cut, and the tokens cut, where the chunks say it."""
    if not pa.types.is_list(lists.type) or lists.type.value_type.get_field_index("lost") < 0:
        return {}
    lost = field_values(lists.flatten(), "lost")
    of_row = np.bincount(pc.list_parent_indices(lists).to_numpy(), weights=lost)
    return {"truncated_rows": int(np.count_nonzero(of_row)), "lost_tokens": int(of_row.sum())}


@contextmanager
def _timed(batch: Batch, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    batch.add_stats(**{f"{stage}_seconds": time.perf_counter() - start})
