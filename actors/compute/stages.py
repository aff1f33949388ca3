"""Run the three functions of a task over one split: expand, forward, regroup.

They are the preprocess, _forward and postprocess of a transformers pipeline, over all rows at once.
An exception in them becomes the failure of a row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow_arrays import (
    check_length,
    combine_chunks,
    field_values,
    make_empty_null,
    read_offsets,
    scatter,
    take_rows,
)
from ..batch import Batch
from ..faults.bisect import SomeFailed, bisect_failures
from ..faults.blame import find_blamed_column
from ..faults.watchdog import mark_progress, watch_stage
from ..task import LoadedTask, NotScheduled
from .empty_answers import count_empty
from .forward_pass import ForwardPass
from .model_trial import ModelTrial
from .token_budget import TokenBudget

T = TypeVar("T")

CHUNKS = "_pipemill_chunks"
OUTPUTS = "_pipemill_outputs"


@dataclass
class Stages:
    """A loaded task, and the input columns that it reads.

    columns: the task's column names to those of the input.
    budget: of a micro-batch; measured over all splits.
    trial: stops a model that answers no row; None if nothing is known of what it reads.
    """

    task: LoadedTask
    columns: Mapping[str, str]
    budget: TokenBudget
    trial: ModelTrial | None = None
    steps: ClassVar[tuple[str, ...]] = ("expand", "forward", "regroup")
    # Calls overlap, one on the host while another is on the device. One at a time in each:
    # a fast tokenizer raises "Already borrowed" when two threads use it at once.
    _host: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _device: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _since: float = field(default_factory=time.perf_counter, repr=False)

    def process(self, batch: Batch) -> Batch:
        """Run all three functions."""
        return self.regroup(self.forward(self.expand(batch)))

    def run_step(self, name: str, batch: Batch) -> Batch:
        """Run one of the functions, by its name."""
        step: Callable[[Batch], Batch] = getattr(self, name)
        return step(batch)

    def expand(self, batch: Batch) -> Batch:
        """Add each row's chunks: a list of structs inside the row."""
        with self._host, watch_stage("expand"), _measure_time(batch, "expand"):
            inputs = self._select_inputs(batch.rows)
            for name in (c.name for c in self.task.inputs if c.required and c.name in self.columns):
                column = self.columns[name]
                error = ValueError(batch.lacking.get(column, f"column {column!r} is null"))
                for missing in np.flatnonzero(inputs[name].is_null().to_numpy()):
                    batch.add_failure("expand", int(missing), error)
            pieces, failed = bisect_failures(
                batch.ok_rows(),
                _note_progress(lambda rows: self._make_chunks(rows, take_rows(inputs, rows))),
            )
            for row, exception in failed:
                self._fail(batch, "expand", row, exception)
        lists = scatter(pieces, batch.rows.num_rows)
        batch.add_stats(**_count_truncated(lists))
        self._check_model(batch, "expand")
        batch.rows = batch.rows.append_column(CHUNKS, lists)
        return batch

    def _make_chunks(self, rows: np.ndarray, inputs: pa.Table) -> pa.ListArray:
        """Return the chunks of each row. Raise SomeFailed if the task says which rows fail."""
        expand_each = getattr(self.task, "expand_each", None)
        if expand_each is None:
            return check_length(rows, self.task.expand(inputs))
        lists, failed = expand_each(inputs)
        lists = check_length(rows[len(failed) :], lists)
        if failed:
            raise SomeFailed(failed, lists)
        return lists

    def forward(self, batch: Batch) -> Batch:
        """Replace the chunks by their outputs, computed in micro-batches across all rows."""
        rows = batch.ok_rows()
        lists = take_rows(combine_chunks(batch.rows[CHUNKS]), rows)
        batch.rows = batch.rows.drop_columns(CHUNKS)
        outputs = pa.nulls(batch.rows.num_rows)
        if len(rows):
            chunks, offsets = lists.flatten(), read_offsets(lists)
            try:
                forward = self._compute(batch, chunks)
            except NotScheduled:
                forward = self._compute(batch, chunks)
            batch.add_stats(**forward.stats)
            row_of_chunk = np.repeat(rows, np.diff(offsets))
            for chunk, error in forward.failed:
                self._fail(batch, "forward", int(row_of_chunk[chunk]), error)
            # Also without any output: a row that has no chunk has an empty list of them.
            flat = scatter(forward.done, len(chunks))
            lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
            outputs = scatter([(rows, lists)], batch.rows.num_rows)
            self._check_model(batch, "forward")
        batch.rows = batch.rows.append_column(OUTPUTS, outputs)
        return batch

    def _compute(self, batch: Batch, chunks: pa.StructArray) -> ForwardPass:
        """Run chunks through the model. Raises NotScheduled for a task that will not again."""
        forward = ForwardPass(self.task, self.budget, chunks)
        with nullcontext() if getattr(self.task, "schedules", False) else self._device:
            with watch_stage("forward"), _measure_time(batch, "forward"):
                forward.run()
            self._count_actor(batch)
        return forward

    def _count_actor(self, batch: Batch) -> None:
        """Count what concerns the actor rather than this split, in amounts that add up."""
        now = time.perf_counter()
        # From the end of one split's forward pass to the end of the next: calls overlap.
        batch.add_stats(actor_seconds=now - self._since)
        self._since = now
        if self.budget.is_final:
            batch.add_stats(**{f"budget_{self.budget.tokens}": 1})

    def regroup(self, batch: Batch) -> Batch:
        """Turn the outputs into the task's result columns; rows that failed hold nulls."""
        outputs = combine_chunks(batch.rows[OUTPUTS])
        batch.rows = batch.rows.drop_columns(OUTPUTS)
        with self._host, watch_stage("regroup"), _measure_time(batch, "regroup"):
            inputs, schema = self._select_inputs(batch.rows), self.task.results()
            pieces, failed = bisect_failures(
                batch.ok_rows(),
                _note_progress(
                    lambda rows: check_length(
                        rows,
                        self.task.regroup(take_rows(inputs, rows), take_rows(outputs, rows))
                        .cast(schema)
                        .to_struct_array(),
                    )
                ),
            )
            for row, error in failed:
                self._fail(batch, "regroup", row, error)
            structs = scatter(pieces, batch.rows.num_rows, pa.struct(list(schema)))
        self._check_model(batch, "regroup")
        columns = [pc.struct_field(structs, i) for i in range(len(schema))]
        batch.results = pa.table(columns, schema=schema)
        batch.add_stats(**count_empty(batch.results, batch.ok_rows()))
        return batch

    def answers(self, batch: Batch) -> list[Any]:
        """Return what the pipeline answers for each row that does not fail.

        Only tasks with a method `answers` can tell.
        """
        batch = self.forward(self.expand(batch))
        inputs, outputs = self._select_inputs(batch.rows), combine_chunks(batch.rows[OUTPUTS])
        pieces, failed = bisect_failures(
            batch.ok_rows(),
            lambda rows: self.task.answers(take_rows(inputs, rows), take_rows(outputs, rows)),  # type: ignore[attr-defined]
        )
        for row, error in failed:
            batch.add_failure("regroup", row, error)
        return [answer for _, answers in pieces for answer in answers]

    def _check_model(self, batch: Batch, step: str) -> None:
        """Raise LoadError for a model that has answered no row so far, and can't answer any."""
        if self.trial is None:
            return

        def run(dummies: Batch) -> Batch:
            # Its budget measures nothing; the locks are the same.
            stages = replace(self, budget=TokenBudget(self.budget.tokens), trial=None)
            for name in self.steps[: self.steps.index(step) + 1]:
                dummies = stages.run_step(name, dummies)
            return dummies

        self.trial.check(batch, step, run)

    def _fail(self, batch: Batch, stage: str, row: int, error: BaseException) -> None:
        """Make a row a dead letter; the task may know more of why."""
        explain = getattr(self.task, "explain_failure", None)
        if explain is not None and row not in batch.failures:
            error = explain(self._select_inputs(batch.rows.slice(row, 1)), error)
        batch.add_failure(stage, row, error, self.columns.get(find_blamed_column(error)))

    def _select_inputs(self, rows: pa.Table) -> pa.Table:
        inputs = {name: rows[column] for name, column in self.columns.items()}
        for column in self.task.inputs:
            if column.name in inputs and column.may_be_empty:
                inputs[column.name] = make_empty_null(inputs[column.name])
        return pa.table(inputs)


def _count_truncated(lists: pa.Array) -> dict[str, int]:
    """Count the rows that were cut and the tokens they lost, if the chunks tell it."""
    if not pa.types.is_list(lists.type) or lists.type.value_type.get_field_index("lost") < 0:
        return {}
    lost = field_values(lists.flatten(), "lost")
    of_row = np.bincount(pc.list_parent_indices(lists).to_numpy(), weights=lost)
    return {"truncated_rows": int(np.count_nonzero(of_row)), "lost_tokens": int(of_row.sum())}


def _note_progress(run: Callable[[np.ndarray], T]) -> Callable[[np.ndarray], T]:
    """Let each call count as progress of the stage: rows that fail are halved again and again."""

    def run_noted(rows: np.ndarray) -> T:
        mark_progress()
        return run(rows)

    return run_noted


@contextmanager
def _measure_time(batch: Batch, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    batch.add_stats(**{f"{stage}_seconds": time.perf_counter() - start})
