"""Choose the device that a job's actors compute on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pipemill.pipelines.engines.registry import find_engine
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.registry import is_built_in

from pipemill.errors import ConfigError

from .gpus import (
    LEAST_MEMORY,
    Machine,
    choose_gpu_share,
    describe_machine,
    explain_no_gpu,
    round_down,
)
from .pool_size import TASK_CPUS, autoscales, find_ray_nodes
from .progress import log
from .ray_address import joins_ray
from .ray_cluster import ray_session

if TYPE_CHECKING:
    from ..config.job import ActorsSection, Job

# Ray names the type of a machine's GPUs, but not their memory.
_MEMORY_GIB = {"T4": 15, "L4": 22, "L40S": 44, "A10G": 22, "V100": 16, "A100": 40, "H100": 79,
               "H200": 140, "B200": 180}  # fmt: skip


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
    share = choose_gpu_share(with_gpus, actors, None if takes_all else _sum_weights(models))
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
    return max(round_down(cpus / actors.per_node, 2), 0.01)


def _update_actors(job: Job, **changes: float) -> Job:
    # The fields hold floats: for integers pydantic would warn when the job is stored.
    numbers = {name: float(value) for name, value in changes.items()}
    return job.model_copy(update={"actors": job.actors.model_copy(update=numbers)})


def find_machines(cluster: str, *, joins: bool) -> list[Machine]:
    """Find the machines of the Ray that is joined, or describe this one."""
    if not joins:
        return [describe_machine()]
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
        gib = next((_MEMORY_GIB[part] for part in parts if part in _MEMORY_GIB), None)
        memory = LEAST_MEMORY if gib is None else gib * 2**30
        cpus, gpus = node.get("CPU", 0), node.get("GPU", 0)
        machines.append(Machine(cpus=cpus, gpus=gpus, gpu_memory=memory, gpu_name=name))
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


def _sum_weights(models: Iterable[ModelFiles]) -> int | None:
    """Return the bytes of all weights; None if those of a model are unknown."""
    sizes = [model.count_weight_bytes() for model in models]
    return None if None in sizes else sum(size or 0 for size in sizes)
