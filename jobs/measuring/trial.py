"""Load a job's model and some of its rows into this process, ready to be measured. No Ray."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import combine_chunks, field_values
from pipemill.actors.batch import Batch
from pipemill.actors.compute.deduplicate import deduplicate_chunks
from pipemill.actors.compute.stages import CHUNKS, Stages
from pipemill.actors.task import Loaded

from pipemill.errors import RunError, explain_missing_library

from ..config.job import Job
from ..execution.single_process import IMPORTS_S
from ..output.stored_rows import sample_input
from ..planning.find_model import load_failure
from ..planning.prepared_job import PreparedJob
from ..planning.sampling.sample_rows import RowSample, sample_rows
from ..prepare import prepare_without_output, resolve_job

_WARM_UP = 4  # rows


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A loaded model and the chunks of some rows.

    rows: The task's columns of the rows that could be read and expanded.
    failed: How many other rows there are.
    chunks: The chunks of these rows, in their order.
    counts: How many chunks each row has.
    distinct: The numbers of the chunks that a run computes: the first of equal ones.
    lost: The tokens truncated from each row.
    host_seconds: What expanding and regrouping all rows takes.
    imports_seconds, plan_seconds, load_seconds: What importing the libraries took; planning the
        job and checking that the model fits; and loading the model.
    """

    job: Job
    prepared: PreparedJob
    loaded: Loaded
    stages: Stages
    sampled: RowSample
    rows: pa.Table
    failed: int
    chunks: pa.StructArray
    counts: np.ndarray
    distinct: np.ndarray
    lost: np.ndarray
    host_seconds: float
    imports_seconds: float
    plan_seconds: float
    load_seconds: float

    @property
    def sizes(self) -> np.ndarray:
        """Return the tokens of each chunk."""
        return field_values(self.chunks, "size")

    @property
    def row_tokens(self) -> np.ndarray:
        """Return the tokens that are computed of each row: those of its chunks."""
        row = np.repeat(np.arange(len(self.counts)), self.counts)
        return np.bincount(row, weights=self.sizes, minlength=len(self.counts))

    @property
    def weight_bytes(self) -> int | None:
        """Return the bytes of the model's weights; None if its engine holds them."""
        model = self.loaded.pipeline.model
        parameters = getattr(model, "parameters", None)
        return None if parameters is None else sum(one.nbytes for one in parameters())

    @property
    def packs(self) -> bool:
        return self.stages.task.packed

    def padding(self) -> AbstractContextManager[Any]:
        """Return a context in which the model is as it was loaded, and chunks are padded."""
        encoder = getattr(self.stages.task, "encoder", None)
        return nullcontext() if encoder is None else encoder.padding()


def start_trial(job: Job, rows: int) -> Trial:
    """Read some rows and load the model; leave the job's output alone.

    Raises:
        ConfigError: The job can't run, or the model does not load.
        RunError: No row could be expanded.
    """
    # It says what is missing before anything is imported.
    resolved, _ = resolve_job(job, "local", here=True)
    imports_seconds = _measure_imports()
    started = time.perf_counter()
    with sample_input(job) as sample:
        # On the device that was chosen: it is said once.
        on_device = sample.job.model_copy(update={"actors": resolved.actors})
        prepared = prepare_without_output(on_device)
        planned = time.perf_counter()
        sampled = sample_rows(prepared.source, prepared.plan.splits, rows)
    prepared = replace(prepared, notes=(*prepared.notes, *sample.notes))
    if sample.rows is not None:
        sampled = replace(sampled, whole=min(sample.rows, job.input.limit or sample.rows))
    loading = time.perf_counter()
    try:
        loaded = prepared.task.loaded()
        stages = prepared.task.stages(loaded)
    except Exception as error:
        raise load_failure(error, str(job.model.path)) from error
    load_seconds = time.perf_counter() - loading
    _try_padding(stages)
    with explain_missing_library():
        batch = stages.expand(sampled.to_batch())
    live = pa.array(batch.ok_rows())
    if not len(live):
        first = next(iter(batch.failures.values()))
        raise RunError(f"none of the rows could be expanded: {first.error}: {first.message}")
    lists = combine_chunks(batch.rows[CHUNKS]).take(live)
    chunks, counts = lists.flatten(), pc.list_value_length(lists).to_numpy()
    if not len(chunks):
        raise RunError("the rows hold nothing to compute: none of them has a chunk")
    repeats = stages.task.repeats
    rows_left = sampled.rows.take(live)
    columns = {name: rows_left[own] for name, own in stages.columns.items()}
    return Trial(
        job=job,
        prepared=prepared,
        loaded=loaded,
        stages=stages,
        sampled=sampled,
        rows=pa.table(columns),
        failed=len(batch.failures) + sampled.unread,
        chunks=chunks,
        counts=counts,
        distinct=deduplicate_chunks(chunks)[0] if repeats else np.arange(len(chunks)),
        lost=_count_lost_tokens(chunks, counts),
        host_seconds=batch.stats["expand_seconds"] + _measure_regroup(stages, prepared, rows_left),
        imports_seconds=imports_seconds,
        plan_seconds=planned - started,
        load_seconds=load_seconds,
    )


def _measure_imports() -> float:
    """Import what every process that computes imports, and return the seconds that takes."""
    if "transformers" in sys.modules:
        return IMPORTS_S
    started = time.perf_counter()
    import torch  # noqa: F401
    import transformers  # noqa: F401

    return time.perf_counter() - started


def _try_padding(stages: Stages) -> None:
    """Find out whether the model can be padded: now, and not while something is measured."""
    encoder = getattr(stages.task, "encoder", None)
    if encoder is not None:
        with encoder.padding():
            pass


def _count_lost_tokens(chunks: pa.StructArray, counts: np.ndarray) -> np.ndarray:
    if chunks.type.get_field_index("lost") < 0:
        return np.zeros(len(counts), dtype=np.int64)
    row = np.repeat(np.arange(len(counts)), counts)
    lost = np.bincount(row, weights=field_values(chunks, "lost"), minlength=len(counts))
    return lost.astype(np.int64)


def _measure_regroup(stages: Stages, prepared: PreparedJob, rows: pa.Table) -> float:
    """Return the seconds for all rows, estimated from a few. Computing them warms everything up."""
    few, seconds = rows.slice(0, _WARM_UP), 0.0
    for _ in range(2):  # what is done for the first time takes longer
        batch = stages.forward(stages.expand(Batch(few)))
        if not prepared.asks_sample:
            seconds = stages.regroup(batch).stats["regroup_seconds"]
    return seconds * rows.num_rows / few.num_rows
