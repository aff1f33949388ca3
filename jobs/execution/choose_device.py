"""Choose the device that a job's actors compute on, and how many of them share a GPU."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipemill.pipelines.engines.registry import find_engine
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.registry import is_built_in

from pipemill.errors import ConfigError

from .gpus import explain_no_gpu, find_gpus
from .pool_size import TASK_CPUS, autoscales, find_ray_nodes
from .progress import log
from .ray_address import joins_ray
from .ray_cluster import ray_session

if TYPE_CHECKING:
    from ..config.job import ActorsSection, Job

_GIB = 2**30
# The most bytes of a model's weights, and how many replicas keep one GPU busy: tokenizing and
# launching kernels hold the interpreter's lock, so a small model needs several processes.
# Measured with 12 layers of width 384 on an H200 with 16 cores: 1 replica 20,500 rows/s, 8 replicas
# 95,700 (docs/gpu.md).
_REPLICAS = ((200 * 2**20, 8), (600 * 2**20, 4), (2 * _GIB, 2))
# Bytes that a replica holds besides its weights: CUDA's context, and a micro-batch's states.
_ROOM = 3 * _GIB
# Ray names the type of a machine's GPUs, but not their memory.
_MEMORY_GIB = {"T4": 15, "L4": 22, "L40S": 44, "A10G": 22, "V100": 16, "A100": 40, "H100": 79,
               "H200": 140, "B200": 180}  # fmt: skip
_LEAST_MEMORY_GIB = 15


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine offers to actors.

    Attributes:
        cpus: its CPUs.
        gpus: its GPUs.
        gpu_memory: bytes of memory of one GPU.
        gpu_name: the GPUs' name.
    """

    cpus: float
    gpus: float = 0
    gpu_memory: int = _LEAST_MEMORY_GIB * _GIB
    gpu_name: str = "GPU"


def choose_device(job: Job, *models: ModelFiles, here: bool = False, on_cpu: bool = False) -> Job:
    """Choose numbers for `actors.num_gpus`, and log the device.

    GPUs are used if there are any: those of the Ray that is joined, else of this machine.

    Args:
        job: the job. Numbers that it has are left as they are.
        models: the files that a worker loads.
        here: whether only this process computes.
        on_cpu: whether a GPU would be of no use.

    Returns:
        The job with numbers.

    Raises:
        ConfigError: for `actors.num_gpus: gpu` without a GPU.
    """
    actors = job.actors
    if not isinstance(actors.num_gpus, str):
        if actors.num_gpus > 1 and not any(map(_uses_several_gpus, job.each_task())):
            log(
                f"actors.num_gpus is {actors.num_gpus:g}, but the model is on the first GPU of an "
                "actor only: set it to 1 for more actors, or take model.engine: vllm, which "
                "divides a model that writes texts among GPUs"
            )
        return job
    if on_cpu:
        return _update_actors(job, num_gpus=0.0)
    alone = here or actors.placement == "local"
    joins = not alone and actors.num_gpus != "cpu" and joins_ray(actors.cluster)
    machines = [] if actors.num_gpus == "cpu" else find_machines(actors.cluster, joins=joins)
    with_gpus = [machine for machine in machines if machine.gpus >= 1]
    if not with_gpus:
        if actors.num_gpus == "gpu":
            where = "this Ray cluster" if joins else "this machine"
            raise ConfigError(
                f"actors.num_gpus is gpu, but {where} has no GPU that torch can use"
                f"{'' if joins else explain_no_gpu()}: leave it out to use the CPUs"
            )
        log(f"device: CPU{'' if actors.num_gpus == 'cpu' else ', no GPU found' + explain_no_gpu()}")
        if joins and _grows(actors.cluster):
            log("this cluster grows: set actors.num_gpus to 1 if its new nodes have GPUs")
        return _update_actors(job, num_gpus=0.0)
    count = int(sum(machine.gpus for machine in with_gpus))
    gpus = f"{count} × {with_gpus[0].gpu_name}" if count > 1 else with_gpus[0].gpu_name
    if alone:
        log(f"device: {with_gpus[0].gpu_name}")
        return _update_actors(job, num_gpus=1.0)
    # An engine with its own weights takes all of a GPU's memory, and keeps it busy.
    takes_all = not all(map(_loads_weights, job.each_task()))
    share = choose_gpu_share(with_gpus, actors, None if takes_all else _sum_weight_bytes(models))
    log(f"device: {gpus}, {share.per_gpu} actor{'s' * (share.per_gpu > 1)} on each")
    return _update_actors(job, num_gpus=share.num_gpus, num_cpus=share.num_cpus)


def divide_nodes(job: Job, *, here: bool = False) -> Job:
    """Choose `actors.num_cpus` so that no node holds more than `actors.per_node` actors.

    Args:
        job: the job, with its device.
        here: whether only this process computes.

    Raises:
        ConfigError: if there is no node to divide.
    """
    actors = job.actors
    if actors.per_node is None or here or actors.placement == "local":
        return job
    machines = find_machines(actors.cluster, joins=joins_ray(actors.cluster))
    divided = _update_actors(job, num_cpus=choose_cpu_share(machines, actors))
    # The number says it all, also where the job is read again.
    without = divided.actors.model_copy(update={"per_node": None})
    return divided.model_copy(update={"actors": without})


def choose_cpu_share(machines: list[Machine], actors: ActorsSection) -> float:
    """Choose the CPUs of each of the `actors.per_node` actors of a node.

    The largest node counts: a head that holds no actors is often a small one.

    Args:
        machines: the nodes.
        actors: the settings, with a number of GPUs.

    Raises:
        ConfigError: if no node could hold an actor.
    """
    assert actors.per_node is not None
    cpus = max((one.cpus for one in machines if one.gpus >= actors.gpus_each), default=0)
    cpus -= 2 * TASK_CPUS if actors.placement == "staged" else 0
    if cpus <= 0:
        raise ConfigError(
            f"actors.per_node is {actors.per_node}, but this Ray cluster has no node yet that "
            "could hold an actor: set actors.num_cpus instead, to the CPUs of an actor"
        )
    return max(_round_down(cpus / actors.per_node, 2), 0.01)


@dataclass(frozen=True, kw_only=True)
class GpuShare:
    """What each actor holds if `per_gpu` of them share a GPU."""

    per_gpu: int
    num_gpus: float
    num_cpus: float


def recommend_gpu_share(
    actors: ActorsSection, weights: int | None, *, host: float, device: float
) -> GpuShare | None:
    """Recommend how many actors share a GPU of this machine, so that rows never keep it waiting.

    Args:
        actors: the job's settings.
        weights: bytes of the model's weights; None if unknown.
        host: seconds in which an actor prepares some rows and shapes their answers.
        device: seconds in which the GPU computes them.

    Returns:
        The share; None without a GPU, or if the job says how much of one an actor holds.
    """
    machines = [machine for machine in find_machines("", joins=False) if machine.gpus >= 1]
    if not machines or not isinstance(actors.num_gpus, str):
        return None
    busy = math.ceil(host / max(device, 1e-9))
    return choose_gpu_share(machines, actors, weights, busy)


def choose_gpu_share(
    machines: list[Machine], actors: ActorsSection, weights: int | None, busy: int = 1
) -> GpuShare:
    """Choose how many actors share each GPU.

    Args:
        machines: machines that all have GPUs.
        actors: the job's settings.
        weights: bytes of the model's weights; None if unknown.
        busy: the actors that must prepare rows at the same time to keep a GPU busy.
    """
    if actors.per_gpu != "auto":
        per_gpu = int(actors.per_gpu)
    else:
        per_gpu = min(
            _count_replicas(machine, weights, actors.num_cpus, busy) for machine in machines
        )
        if actors.max != "auto":
            gpus = sum(math.floor(machine.gpus) for machine in machines)
            per_gpu = min(per_gpu, max(math.ceil(actors.max / gpus), 1))
    cpus = min(machine.cpus / (machine.gpus * per_gpu) for machine in machines)
    return GpuShare(
        per_gpu=per_gpu,
        num_gpus=1.0 if per_gpu == 1 else _round_down(1 / per_gpu, 4),
        num_cpus=min(float(actors.num_cpus), max(_round_down(cpus, 2), 0.01)),
    )


def _count_replicas(machine: Machine, weights: int | None, num_cpus: float, busy: int) -> int:
    if weights is None:
        return 1
    wanted = max(busy, next((count for most, count in _REPLICAS if weights <= most), 1))
    by_memory = machine.gpu_memory // (weights + _ROOM)
    by_cpus = math.floor(machine.cpus / machine.gpus / num_cpus)
    return max(min(wanted, by_memory, by_cpus), 1)


def _round_down(number: float, digits: int) -> float:
    return math.floor(number * 10**digits) / 10**digits


def _update_actors(job: Job, **changes: float) -> Job:
    # The fields hold floats: for integers pydantic would warn when the job is stored.
    numbers = {name: float(value) for name, value in changes.items()}
    return job.model_copy(update={"actors": job.actors.model_copy(update=numbers)})


def find_machines(cluster: str, *, joins: bool) -> list[Machine]:
    """Find the machines of the Ray that is joined, or describe this one."""
    if not joins:
        gpus = find_gpus()
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        if not gpus:
            return [Machine(cpus=cpus or 1)]
        name, memory = gpus[0]
        return [Machine(cpus=cpus or 1, gpus=len(gpus), gpu_memory=memory, gpu_name=name)]
    with ray_session(cluster):
        return read_ray_machines(find_ray_nodes())


def _grows(cluster: str) -> bool:
    with ray_session(cluster):
        return autoscales()


def read_ray_machines(nodes: Iterable[Mapping[str, float]]) -> list[Machine]:
    """Describe the machines of a Ray cluster from its nodes' resources."""
    machines = []
    for node in nodes:
        marks = [key for key in node if key.startswith("accelerator_type:")]
        name = marks[0].partition(":")[2] if marks else "GPU"
        model = name.removeprefix("NVIDIA-").removeprefix("TESLA-")
        parts = re.split("[- ]", model.upper())
        gib = next((_MEMORY_GIB[part] for part in parts if part in _MEMORY_GIB), _LEAST_MEMORY_GIB)
        machines.append(
            Machine(
                cpus=node.get("CPU", 0),
                gpus=node.get("GPU", 0),
                gpu_memory=gib * _GIB,
                gpu_name=name,
            )
        )
    return machines


def _loads_weights(job: Job) -> bool:
    """Tell whether the engine of a job of one task computes with the model in torch."""
    factory = find_engine(job.model.engine)
    return factory is None or factory.loads_weights


def _uses_several_gpus(job: Job) -> bool:
    """Tell whether a job of one task may: by its engine, or by code that is the user's."""
    factory = find_engine(job.model.engine)
    spreads = factory is not None and factory.spreads
    return spreads or job.pipeline_class is not None or not is_built_in(job.task)


def _sum_weight_bytes(models: Iterable[ModelFiles]) -> int | None:
    """Return the size of all weights in bytes; None if that of a model is unknown."""
    sizes = [_find_weight_bytes(model) for model in models]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _find_weight_bytes(model: ModelFiles) -> int | None:
    """Find the size of a model's weights in bytes; None if it is unknown."""
    folder = model.folder()
    files = () if folder is None else filter(Path.is_file, folder.iterdir())
    found = _sum_weights({file.name: file.stat().st_size for file in files})
    # Of a model on the Hub, this machine may have the small files alone.
    if found is None and not Path(model.path).is_dir():
        from huggingface_hub import HfApi

        with suppress(Exception):  # the Hub can't be reached: the worker will say so
            info = HfApi().model_info(model.path, revision=model.revision, files_metadata=True)
            found = _sum_weights({one.rfilename: one.size or 0 for one in info.siblings or ()})
    return found


def _sum_weights(files: Mapping[str, int]) -> int | None:
    """Return the bytes of those files that hold weights; None without any. files: by name."""
    for suffix in (".safetensors", ".bin"):
        sizes = [size for name, size in files.items() if name.endswith(suffix) and "/" not in name]
        if sizes:
            return sum(sizes)
    return None
