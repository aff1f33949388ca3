"""One model replica that reads, processes and writes whole splits."""

from __future__ import annotations

import pyarrow as pa

from ..batch import Batch
from ..faults.blame import find_blame
from ..faults.poison_rows import CrashIsolator
from ..faults.process_end import set_replaceable
from ..split import Split, SplitReader
from ..split_result import SplitResult
from .split_steps import (
    Load,
    Sink,
    WorkerModel,
    find_crowding,
    isolate_in_process,
    map_splits,
    process_safely,
    read_split,
    write_split,
)


class FusedWorker:
    """One model replica: loads once, then reads, processes and writes whole splits."""

    # Whether another process may take the place of the worker's.
    replaceable = True

    def __init__(
        self, load: Load, source: SplitReader, sink: Sink, *, shares_gpu: bool = False
    ) -> None:
        """shares_gpu: whether other actors hold memory of the GPU."""
        set_replaceable(self.replaceable)
        self.load, self.source, self.sink = load, source, sink
        self.shares_gpu = shares_gpu
        self.model = WorkerModel(load, sink.attempts())

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_splits(table, self._process)

    def process(self, split: Split) -> SplitResult:
        """Process a split without Ray."""
        return process_safely(self._process, split, None)

    def _process(self, split: Split, _: bytes | None) -> SplitResult:
        # Ray may run a task again after its part was written.
        if self.sink.is_done(split):
            return SplitResult(split=split)
        return self.model.run_attempt(
            split, lambda: self._process_usually(split), lambda: self._process_isolated(split)
        )

    def _process_usually(self, split: Split) -> SplitResult:
        batch = read_split(self.source, split)
        with self.model.slot.stages() as stages:
            batch = stages.process(batch)
        return self._finish(split, batch)

    def _process_isolated(self, split: Split) -> SplitResult:
        with (
            self.model.slot.unloaded(),
            isolate_in_process(self.load, self.source) as isolation,
        ):
            batch = isolation.read(split)
            batch = isolation.run(None, batch)
        return self._finish(split, batch)

    def _finish(self, split: Split, batch: Batch) -> SplitResult:
        crowded = find_crowding(split, batch) if self.shares_gpu else None
        return crowded or write_split(self.sink, split, batch)


class LocalWorker(FusedWorker):
    """A worker in the user's process, which never ends itself.

    After an error of the device that stays, a separate process computes.
    """

    replaceable = False

    def __init__(self, load: Load, source: SplitReader, sink: Sink) -> None:
        super().__init__(load, source, sink)
        self._instead: CrashIsolator | None = None

    def close(self) -> None:
        """End the separate process, if there is one."""
        if self._instead is not None:
            self._instead.__exit__()

    def _process_usually(self, split: Split) -> SplitResult:
        if self._instead is None:
            try:
                return super()._process_usually(split)
            except Exception as error:
                if find_blame(error) != "process":
                    raise
            self.model.slot.discard()
            self._instead = isolate_in_process(self.load)
        batch = self._instead.run(None, read_split(self.source, split))
        return write_split(self.sink, split, batch)
