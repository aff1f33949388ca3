"""Find out how many actors fit into a Ray cluster."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipemill.actors.monitoring.ray_connection import find_connected_ray

from pipemill.errors import ConfigError

if TYPE_CHECKING:
    from ..config.job import ActorsSection

# CPUs of the read and write tasks of the staged placement. They differ from an actor's, or Ray
# would fuse the tasks into the actors' operator.
TASK_CPUS = 0.25


def choose_pool_size(actors: ActorsSection, placement: str, splits: int) -> tuple[int, int]:
    """Choose how many actors to start with, and how many to grow to.

    Ray waits silently for what does not fit: an actor larger than any node, or read and write
    tasks when actors hold every CPU. This function prevents both.

    Args:
        actors: the job's settings.
        placement: the resolved placement.
        splits: the number of splits, which is the most actors that are useful.

    Raises:
        ConfigError: if not even one actor can ever fit.
    """
    nodes = find_ray_nodes()
    tasks = 2 * TASK_CPUS if placement == "staged" else 0
    free = [dict(node) for node in nodes]
    if tasks:
        largest = max(free, key=lambda node: node.get("CPU", 0))
        largest["CPU"] = largest.get("CPU", 0) - tasks
    fit = sum(count_actors(node, actors) for node in free)
    grows = autoscales()
    if fit == 0 and not grows:
        raise ConfigError(_explain_no_room(nodes, actors, tasks))
    # The cluster's own limit is not known here, but Ray heeds it. Staged actors may take the CPUs
    # that its tasks need, so they don't grow without a limit.
    fits = splits if grows and not tasks else fit
    wanted = fits if actors.max == "auto" else actors.max
    most = max(min(wanted, splits), 1)
    if not grows:
        if tasks:
            most = min(most, fit)  # more would take the tasks' CPUs
        return max(min(fit, most), 1), most
    # Requests that do not fit yet make the cluster grow.
    return max(min(fit, most), min(actors.min, most)), most


def find_ray_nodes() -> list[dict[str, float]]:
    """Return the resources of each node of the Ray that is joined."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@dataclass(frozen=True, kw_only=True)
class OperatorPool:
    """The actors of an operator in a user's pipeline.

    Attributes:
        least: actors that are always there.
        initial: actors that start at first, together with a CPU at most, as one actor of Ray has:
            if all started at once, actors of the user's other operators might wait forever. Ray
            adds others when these are busy and CPUs are free.
        most: actors at most; None for no limit.
        num_cpus: CPUs that each of them reserves.
    """

    least: int
    initial: int
    most: int | None
    num_cpus: float


def choose_operator_pool(
    actors: ActorsSection, nodes: Sequence[Mapping[str, float]], *, autoscales: bool
) -> OperatorPool:
    """Choose the actors of an operator that shares a Ray cluster with the user's operators.

    These need CPUs, too: if actors held every one, the pipeline would wait forever.

    Args:
        actors: the settings. Where `num_cpus` was not given, actors reserve less than half a CPU
            each, or those of a GPU one together: Ray adds actors only within the share of the CPUs
            that it allots an operator, and operators that wait have a share, too.
        nodes: the resources of each node.
        autoscales: whether the cluster may grow.

    Raises:
        ConfigError: if not even one actor can ever fit: the pipeline would wait forever.
    """
    counts = [count_actors(node, actors) for node in nodes]
    is_asked = actors.gpus_each or "num_cpus" in actors.model_fields_set
    if is_asked and not any(counts) and not autoscales:
        raise ConfigError(_explain_no_room(nodes, actors, 0))
    fit, num_cpus = max(sum(counts), 1), float(actors.num_cpus)
    if "num_cpus" not in actors.model_fields_set:
        # Where GPUs limit the actors of a node, CPUs need not.
        shares = [
            (1 if actors.gpus_each else (node.get("CPU", 0) - 1) / 2) / count
            for node, count in zip(nodes, counts, strict=True)
            if count
        ]
        # None where a task that reads takes the only CPU of a node, unless Ray would go on adding.
        least_cpus = 0.01 if autoscales else 0.0
        num_cpus = max(math.floor(min([num_cpus, *shares]) * 10**4) / 10**4, least_cpus)
    elif sum(node.get("CPU", 0) for node in nodes) - fit * num_cpus < 1:
        fit = max(fit - 1, 1)
    most = actors.max if actors.max != "auto" else None if autoscales else fit
    least = actors.min if autoscales else min(actors.min, fit)
    wanted = fit if most is None else most
    if num_cpus:
        wanted = min(wanted, math.floor(1 / num_cpus))
    return OperatorPool(least=least, initial=max(least, wanted), most=most, num_cpus=num_cpus)


def count_actors(node: Mapping[str, float], actors: ActorsSection) -> int:
    """Return how many actors fit on a node with these resources."""
    by_cpu = math.floor(node.get("CPU", 0) / actors.num_cpus + 1e-9)
    if not actors.gpus_each:
        return max(by_cpu, 0)
    by_gpu = math.floor(node.get("GPU", 0) / actors.gpus_each + 1e-9)
    return max(min(by_cpu, by_gpu), 0)


def _explain_no_room(
    nodes: Sequence[Mapping[str, float]], actors: ActorsSection, tasks: float
) -> str:
    cpus = max((node.get("CPU", 0) for node in nodes), default=0)
    gpus = max((node.get("GPU", 0) for node in nodes), default=0)
    if actors.gpus_each > gpus:
        fewer = f"{gpus:g} or less, or to " if gpus else ""
        return (
            f"an actor asks for {actors.gpus_each:g} GPU (actors.num_gpus), but the largest node "
            f"of this Ray cluster has {gpus:g}: set actors.num_gpus to {fewer}0 for CPU"
        )
    extra = f", and the read and write tasks for {tasks:g} more" if tasks else ""
    room = cpus - tasks
    return (
        f"an actor asks for {actors.num_cpus:g} CPU (actors.num_cpus){extra}, but the largest node "
        f"of this Ray cluster has {cpus:g}: set actors.num_cpus to {max(room, 0.25):g} or less"
        + (", or actors.placement to fused" if tasks else "")
    )


def describe_wait(actors: ActorsSection) -> str | None:
    """Return the resource that is in use, so that no actor can start now; None if one can."""
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    for name, needs in (("CPU", actors.num_cpus), ("GPU", actors.gpus_each)):
        all_units, free_units = total.get(name, 0), free.get(name, 0)
        if free_units < needs <= all_units:
            return f"waits for {name}s ({all_units - free_units:g} of {all_units:g} in use)"
    return None


def describe_lost_room(actors: ActorsSection) -> str | None:
    """Return that no node that is alive can hold an actor; None if one can, or without a Ray."""
    if find_connected_ray() is None:
        return None
    nodes = find_ray_nodes()
    if any(count_actors(node, actors) for node in nodes):
        return None
    return (
        f"none of the {len(nodes)} nodes of the Ray cluster can hold an actor now: the run waits "
        "until one joins that can. Or interrupt it; run again to resume"
    )


def autoscales() -> bool:
    """Return whether an autoscaler may add nodes.

    Every head node runs a monitor. If it has no cluster to scale, it names the nodes `node_ID`;
    otherwise by the node types of the cluster's configuration.
    """
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.data._internal.cluster_autoscaler.util import is_autoscaling_enabled
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaling_enabled() or is_autoscaler_v2():
        return True
    status = json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}")
    # Not `active_nodes`: a head without CPUs, alone, is not among them.
    types = status.get("autoscaler_report", {}).get("node_type_mapping") or {}
    return any(not name.startswith("node_") for name in types.values())
