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

from .batch import Batch
from .batching import micro_batches, padded_size
from .isolate import isolate
from .task import Task

CHUNKS = "_pipemill_chunks"
OUTPUTS = "_pipemill_outputs"


@dataclass
class Stages:
    """A loaded task over the user's columns.

    columns: the task's column names to the user's.
    budget: the most padded tokens in a micro-batch.
    """

    task: Task
    columns: Mapping[str, str]
    budget: int
    # Calls overlap, one on the host while another is on the device. One at a time in each:
    # a fast tokenizer raises "Already borrowed" when two threads use it at once.
    _host: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _device: threading.Lock = field(default_factory=threading.Lock, repr=False)

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
                    batch.fail("expand", int(missing), error)
            pieces, failed = isolate(
                batch.live(), lambda rows: _each(rows, self.task.expand(inputs.take(rows)))
            )
            for row, exception in failed:
                batch.fail("expand", row, exception)
        lists = _scatter(pieces, batch.rows.num_rows)
        batch.count(**_losses(lists))
        batch.rows = batch.rows.append_column(CHUNKS, lists)
        return batch

    def forward(self, batch: Batch) -> Batch:
        """Replaces the chunks by their outputs, computed in micro-batches across all rows."""
        live = batch.live()
        lists = _one_array(batch.rows[CHUNKS]).take(pa.array(live))
        batch.rows = batch.rows.drop_columns(CHUNKS)
        outputs = pa.nulls(batch.rows.num_rows)
        if len(live):
            chunks, offsets = lists.flatten(), _offsets(lists)
            with self._device, _timed(batch, "forward"):
                pieces, failed = self._run(batch, chunks)
            row_of_chunk = np.repeat(live, np.diff(offsets))
            for chunk, error in failed:
                batch.fail("forward", int(row_of_chunk[chunk]), error)
            if pieces:
                flat = _scatter(pieces, len(chunks))
                lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
                outputs = _scatter([(live, lists)], batch.rows.num_rows)
        batch.rows = batch.rows.append_column(OUTPUTS, outputs)
        return batch

    def regroup(self, batch: Batch) -> Batch:
        """Turns the outputs into the task's result columns; rows that failed hold nulls."""
        outputs = _one_array(batch.rows[OUTPUTS])
        batch.rows = batch.rows.drop_columns(OUTPUTS)
        with self._host, _timed(batch, "regroup"):
            inputs, schema = self._inputs(batch.rows), self.task.results()
            pieces, failed = isolate(
                batch.live(),
                lambda rows: _each(
                    rows,
                    self.task.regroup(inputs.take(rows), outputs.take(pa.array(rows)))
                    .cast(schema)
                    .to_struct_array(),
                ),
            )
            for row, error in failed:
                batch.fail("regroup", row, error)
            structs = _scatter(pieces, batch.rows.num_rows, pa.struct(list(schema)))
        columns = [pc.struct_field(structs, i) for i in range(len(schema))]
        batch.results = pa.table(columns, schema=schema)
        return batch

    def answers(self, batch: Batch) -> list[Any]:
        """What the rows' pipeline returns, of rows that do not fail; for tasks that can tell."""
        batch = self.forward(self.expand(batch))
        inputs, outputs = self._inputs(batch.rows), _one_array(batch.rows[OUTPUTS])
        pieces, failed = isolate(
            batch.live(),
            lambda rows: self.task.answers(inputs.take(rows), outputs.take(pa.array(rows))),  # type: ignore[attr-defined]
        )
        for row, error in failed:
            batch.fail("regroup", row, error)
        return [answer for _, found in pieces for answer in found]

    def _run(
        self, batch: Batch, chunks: pa.StructArray
    ) -> tuple[list[tuple[np.ndarray, pa.Array]], list[tuple[int, BaseException]]]:
        sizes = chunks.field("size").to_numpy(zero_copy_only=False)
        padded = not self.task.packed
        cuts = micro_batches(sizes, self.budget, _field(chunks, "group"), padded=padded)
        done, failed = [], []
        for cut in cuts:
            pieces, errors = isolate(
                cut, lambda some: _each(some, self.task.forward(chunks.take(pa.array(some))))
            )
            done += pieces
            failed += errors
        batch.count(
            chunks=len(chunks),
            micro_batches=len(cuts),
            tokens=int(sizes.sum()),
            padded_tokens=padded_size(sizes, cuts) if padded else int(sizes.sum()),
            packed_tokens=0 if padded else int(sizes.sum()),
        )
        return done, failed

    def _inputs(self, rows: pa.Table) -> pa.Table:
        return pa.table({name: rows[column] for name, column in self.columns.items()})


def _one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A single array: two adjacent chunks of one column are no boundary that means anything."""
    if isinstance(values, pa.ChunkedArray):
        return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    return values


def _each(items: np.ndarray, values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One value per item, or an error: a missing one would shift the answers of all that follow."""
    if len(values) != len(items):
        raise ValueError(f"{len(values)} values for {len(items)} items")
    return _one_array(values)


def _field(chunks: pa.StructArray, name: str) -> np.ndarray | None:
    if chunks.type.get_field_index(name) < 0:
        return None
    return chunks.field(name).to_numpy(zero_copy_only=False)


def _losses(lists: pa.Array) -> dict[str, int]:
    """How many rows were cut, and the tokens cut, where the chunks say it."""
    lost = _field(lists.flatten(), "lost") if pa.types.is_list(lists.type) else None
    if lost is None:
        return {}
    of_row = np.bincount(pc.list_parent_indices(lists).to_numpy(), weights=lost)
    return {"truncated_rows": int(np.count_nonzero(of_row)), "lost_tokens": int(of_row.sum())}


def _offsets(lists: pa.ListArray) -> np.ndarray:
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _scatter(
    pieces: list[tuple[np.ndarray, pa.Array]], length: int, type: pa.DataType | None = None
) -> pa.Array:
    """An array of `length` with each piece's values at its indices, and null elsewhere."""
    if not pieces:
        return pa.nulls(length, type)
    source = np.full(length, -1, dtype=np.int64)
    at = np.concatenate([index for index, _ in pieces])
    source[at] = np.arange(len(at))
    values = pa.concat_arrays([values for _, values in pieces])
    return values.take(pa.array(source, mask=source < 0))


@contextmanager
def _timed(batch: Batch, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    batch.count(**{f"{stage}_seconds": time.perf_counter() - start})
