"""Three operators of Ray Data: one model replica between tasks that read and write."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from ..batch import Batch
from ..compute.stages import Stages
from ..faults.attempts import Attempts, run_attempt
from ..faults.process_end import set_replaceable
from ..split import Split, SplitReader
from ..split_result import SplitResult
from .split_steps import (
    Load,
    Sink,
    WorkerModel,
    find_crowding,
    isolate_in_process,
    load_stages,
    map_splits,
    read_split,
    write_split,
)


class ExpandWorker:
    """The first of three operators: reads a split and expands it, on CPU."""

    def __init__(self, load: Load, source: SplitReader, sink: Sink) -> None:
        self.load, self.source, self.sink = load, source, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_splits(table, self._process)

    def _process(self, split: Split, _: bytes | None) -> SplitResult:
        if self.sink.is_done(split):
            return SplitResult(split=split)
        attempts = self.sink.attempts()
        # Listed for every split: Ray runs a task that died in any process, however old.
        seen = attempts.names()
        return run_attempt(
            attempts,
            seen,
            split.part,
            lambda: self._process_usually(split),
            lambda: self._process_isolated(split),
        )

    def _process_usually(self, split: Split) -> SplitResult:
        batch = _load_once(self.load).expand(read_split(self.source, split))
        return SplitResult(split=split, payload=batch.to_bytes())

    def _process_isolated(self, split: Split) -> SplitResult:
        with isolate_in_process(self.load, self.source) as isolation:
            batch = isolation.run(("expand",), isolation.read(split))
        return SplitResult(split=split, payload=batch.to_bytes())


class ForwardWorker:
    """The second operator: one model replica, which only computes."""

    def __init__(self, load: Load, attempts: Attempts, *, shares_gpu: bool = False) -> None:
        """shares_gpu: whether other actors hold memory of the GPU."""
        set_replaceable(True)
        self.load, self.shares_gpu = load, shares_gpu
        self.model = WorkerModel(load, attempts)

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_splits(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> SplitResult:
        if payload is None:
            return SplitResult(split=split)
        batch = Batch.from_bytes(payload)
        computed = self.model.run_attempt(
            split, lambda: self._process_usually(batch), lambda: self._process_isolated(batch)
        )
        crowded = find_crowding(split, computed) if self.shares_gpu else None
        return crowded or SplitResult(split=split, payload=computed.to_bytes())

    def _process_usually(self, batch: Batch) -> Batch:
        with self.model.slot.stages() as stages:
            assert isinstance(stages, Stages)
            return stages.forward(batch)

    def _process_isolated(self, batch: Batch) -> Batch:
        with self.model.slot.unloaded(), isolate_in_process(self.load) as isolation:
            return isolation.run(("forward",), batch)


class RegroupWorker:
    """The third operator: turns outputs into answers and writes the part, on CPU."""

    def __init__(self, load: Load, sink: Sink) -> None:
        self.load, self.sink = load, sink

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_splits(table, self._process)

    def _process(self, split: Split, payload: bytes | None) -> SplitResult:
        if payload is None:
            return SplitResult(split=split)
        attempts, batch = self.sink.attempts(), Batch.from_bytes(payload)
        return run_attempt(
            attempts,
            attempts.names(),
            split.part,
            lambda: write_split(self.sink, split, _load_once(self.load).regroup(batch)),
            lambda: self._process_isolated(split, batch),
        )

    def _process_isolated(self, split: Split, batch: Batch) -> SplitResult:
        with isolate_in_process(self.load) as isolation:
            batch = isolation.run(("regroup",), batch)
        return write_split(self.sink, split, batch)


@lru_cache(maxsize=1)
def _load_once(load: Load) -> Stages:
    """Load for Ray tasks, which have no constructor: what they load stays in their process."""
    stages = load_stages(load)
    assert isinstance(stages, Stages)  # a cascade is not cut into operators
    return stages
