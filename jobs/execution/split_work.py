"""What processing splits takes, besides the splits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.split import SplitReader
from pipemill.pipelines.load_cascade import LoadCascade
from pipemill.pipelines.loading.task_loader import LoadTask

if TYPE_CHECKING:
    from ..config.job import ActorsSection


@dataclass(frozen=True, kw_only=True)
class SplitWork:
    """How splits are processed.

    Attributes:
        placement: "local", "single", "fused" or "staged".
        load: loads the task, or several.
        source: reads splits.
        sink: writes parts and dead letters.
        actors: the resources of each worker.
    """

    placement: str
    load: LoadTask | LoadCascade
    source: SplitReader
    sink: PartSink
    actors: ActorsSection

    @property
    def shares_gpu(self) -> bool:
        """Tell whether several actors share a GPU."""
        return 0 < self.actors.gpus_each < 1

    def with_fewer_on_gpu(self) -> SplitWork:
        """Return the same with half as many actors on a GPU that they share."""
        return self._set_per_gpu(max(math.floor(1 / self.actors.gpus_each) // 2, 1))

    def alone_on_gpu(self) -> SplitWork:
        """Return the same for one actor, which has the GPU that others would share."""
        return self._set_per_gpu(1) if self.shares_gpu else self

    def _set_per_gpu(self, per_gpu: int) -> SplitWork:
        num_gpus = math.floor(10**4 / per_gpu) / 10**4
        return replace(
            self,
            load=self.load.with_num_gpus(num_gpus),
            actors=self.actors.model_copy(update={"num_gpus": num_gpus}),
        )
