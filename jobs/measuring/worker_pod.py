"""What a worker's pod on Kubernetes must have for a job's actors, as its manifest says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..config.job import ActorsSection

_GIB = 2**30
# Ray's own processes on a node, and the part of its memory that its object store takes.
_RAY_BYTES, _STORE_SHARE = _GIB, 0.3
# More than a trial needed: rows that were not in the sample may be longer.
_ROOM = 1.25


@dataclass(frozen=True, kw_only=True)
class WorkerPod:
    """The resources of a pod in which a Ray worker runs.

    Attributes:
        actors: how many actors it holds: all that share a GPU, or one without a GPU.
        cpus: its CPUs.
        memory_gib: its memory.
        gpus: its GPUs.
    """

    actors: int
    cpus: int
    memory_gib: int
    gpus: int = 0

    def to_manifest(self) -> dict[str, dict[str, Any]]:
        """Return the `resources` of a container."""
        held: dict[str, Any] = {"cpu": str(self.cpus), "memory": f"{self.memory_gib}Gi"}
        gpus = {"nvidia.com/gpu": self.gpus} if self.gpus else {}
        return {"requests": held, "limits": {**held, **gpus}}

    def __str__(self) -> str:
        gpus = f", nvidia.com/gpu: {self.gpus}" if self.gpus else ""
        many = f"{self.actors} actors" if self.actors > 1 else "one actor"
        return (
            f'requests and limits {{cpu: "{self.cpus}", memory: {self.memory_gib}Gi{gpus}}} '
            f"({many})"
        )


def estimate_worker_pod(actors: ActorsSection, actor_bytes: int) -> WorkerPod:
    """Estimate what a worker's pod needs.

    Args:
        actors: the job's settings, with the device that was chosen.
        actor_bytes: the memory that one actor takes, that of a GPU left out.
    """
    gpus = actors.gpus_each
    count = math.floor(1 / gpus) if 0 < gpus < 1 else 1
    # An actor's CPUs, and one for what reads, writes and Ray itself.
    cpus = math.ceil(count * actors.num_cpus) + 1
    needed = (count * actor_bytes * _ROOM + _RAY_BYTES) / (1 - _STORE_SHARE)
    return WorkerPod(
        actors=count,
        cpus=cpus,
        memory_gib=math.ceil(needed / _GIB),
        gpus=math.ceil(gpus) if gpus else 0,
    )
