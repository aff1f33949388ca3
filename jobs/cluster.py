"""Ray itself: start it or join it, and see what fits."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ConfigError, RunError
from .job import ActorsSection

# What the read and write tasks of the staged placement hold. Unlike an actor's whole CPUs, or
# Ray would fuse them into the actors' operator.
TASK_CPUS = 0.25


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray for the time of a run: the one that is running or configured, else a local one."""
    import ray
    import ray.data

    # After the import, which sets the level. What a user needs to know pipemill says itself.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    with _own_sigterm():
        _start()
    try:
        yield
    finally:
        ray.shutdown()


def _start() -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    _check_address(address)
    try:
        if address or _running_here():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        else:
            _start_local()
    except Exception as error:  # Ray has no exception of its own for it
        ray.shutdown()
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(f"Ray could not be started ({reason[0]}); run again to resume") from error


def _check_address(address: str) -> None:
    """Raises ConfigError where nothing listens: `ray.init` would wait for it for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # none, or one that Ray looks up itself: "auto"
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray answers at {address} (RAY_ADDRESS: {error}): start a cluster there, or unset "
            "it to run on this machine"
        ) from None


def _start_local() -> None:
    import ray

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with _silent_stderr():
        ray.init("local", log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM for itself and exits; whoever set a handler before it means to resume."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def joins_cluster() -> bool:
    """Return whether a run goes to a Ray that is there already, with machines beside this one."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        here = socket.gethostname()
        return any(node["NodeManagerHostname"] != here for node in ray.nodes() if node["Alive"])
    if os.environ.get("RAY_ADDRESS"):
        return True
    # Where `ray start` leaves its address; without that file Ray needn't be imported to ask.
    named = os.environ.get("RAY_TMPDIR")
    folders = [named] if named else [tempfile.gettempdir(), "/tmp"]
    left = [f"{folder}/ray/ray_current_cluster" for folder in folders]
    return any(map(os.path.exists, left)) and _running_here()


def _running_here() -> bool:
    """Whether a `ray start` on this machine left an address at which something answers.

    A head that was killed leaves one too, and `ray.init` would wait for it for minutes.
    """
    from ray._private.utils import read_ray_address

    host, _, port = (read_ray_address() or "").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """While a local Ray starts: its C++ side says on stderr which log level it was given."""
    saved = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


def pool_size(actors: ActorsSection, placement: str, splits: int) -> tuple[int, int]:
    """How many actors to start with, and to grow to. Raises ConfigError if none can ever fit.

    Ray waits without a word for what does not fit: an actor larger than any node, or read and
    write tasks when actors hold every CPU. Both are settled here.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    tasks = 2 * TASK_CPUS if placement == "staged" else 0
    free = [dict(node) for node in nodes]
    if tasks:
        largest = max(free, key=lambda node: node.get("CPU", 0))
        largest["CPU"] = largest.get("CPU", 0) - tasks
    fit = sum(_count(node, actors) for node in free)
    if fit == 0 and not _autoscales():
        raise ConfigError(_nothing_fits(nodes, actors, tasks))
    wanted = fit if actors.max == "auto" else actors.max
    most = max(min(wanted, splits), 1)
    if not _autoscales():
        if tasks:
            most = min(most, fit)  # more would take the tasks' CPUs
        return max(min(fit, most), 1), most
    # What does not fit yet makes the cluster grow.
    return max(min(fit, most), min(actors.min, most)), most


def _count(node: dict[str, float], actors: ActorsSection) -> int:
    by_cpu = math.floor(node.get("CPU", 0) / actors.num_cpus + 1e-9)
    by_gpu = math.floor(node.get("GPU", 0) / actors.num_gpus + 1e-9) if actors.num_gpus else by_cpu
    return max(min(by_cpu, by_gpu), 0)


def _nothing_fits(nodes: list[dict[str, float]], actors: ActorsSection, tasks: float) -> str:
    cpus = max((node.get("CPU", 0) for node in nodes), default=0)
    gpus = max((node.get("GPU", 0) for node in nodes), default=0)
    if actors.num_gpus > gpus:
        return (
            f"an actor asks for {actors.num_gpus:g} GPU (actors.num_gpus), but the largest node "
            f"of this Ray cluster has {gpus:g}: set actors.num_gpus to 0 for CPU"
        )
    extra = f" beside {tasks:g} for the read and write tasks" if tasks else ""
    room = cpus - tasks
    return (
        f"an actor asks for {actors.num_cpus:g} CPU (actors.num_cpus){extra}, but the largest node "
        f"of this Ray cluster has {cpus:g}: set actors.num_cpus to {max(room, 0.25):g} or less"
        + (", or actors.placement to fused" if tasks else "")
    )


def _autoscales() -> bool:
    """Whether nodes may still join because an autoscaler adds them.

    Every head node runs a monitor. Without a cluster to scale it names the nodes it sees
    `node_ID`; with one, by the node types of the cluster's configuration.
    """
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.data._internal.cluster_autoscaler.util import is_autoscaling_enabled
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaling_enabled() or is_autoscaler_v2():
        return True
    status = json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}")
    types = status.get("autoscaler_report", {}).get("active_nodes", {})
    return any(not name.startswith("node_") for name in types)
