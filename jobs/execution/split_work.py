"""What processing splits takes, besides the splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.split import SplitReader
from pipemill.pipelines.loading.task_loader import LoadTask

if TYPE_CHECKING:
    from ..config.job import ActorsSection


@dataclass(frozen=True, kw_only=True)
class SplitWork:
    """How splits are processed.

    Attributes:
        placement: "local", "single", "fused" or "staged".
        load: loads the task.
        source: reads splits.
        sink: writes parts and dead letters.
        actors: the resources of each worker.
    """

    placement: str
    load: LoadTask
    source: SplitReader
    sink: PartSink
    actors: ActorsSection
