"""Start or join Ray, and find out how many actors fit."""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipemill.actors.storage.filesystem import absolute

from pipemill.errors import ConfigError, RunError

from .progress import log, waiting
from .supervisor import check_interrupts, report_ray

if TYPE_CHECKING:
    from ..config.job import ActorsSection

# CPUs of the read and write tasks of the staged placement. They differ from an actor's, or Ray
# would fuse the tasks into the actors' operator.
TASK_CPUS = 0.25


# The folder of the copies that Ray makes of working directories (`ray job submit --working-dir`).
_WORKING_COPY = "/runtime_resources/working_dir_files/"

# Whether pipemill started or joined Ray, and whether it is shut down later than its session.
_is_ours = False
_shuts_down_later = False
# Ray's function that prints the messages of raylets, while it is replaced.
_print_to_stdstream: Callable[..., None] | None = None
# How long a shutdown waits for Ray's threads in this process.
_THREADS_S = 30.0


@contextmanager
def ray_until_end() -> Iterator[None]:
    """Keep Ray running when a session in this block ends; shut it down at the end of the block.

    Of nested blocks the outermost one shuts it down.
    """
    global _shuts_down_later
    is_nested = _shuts_down_later
    _shuts_down_later = True
    try:
        yield
    finally:
        _shuts_down_later = is_nested
        if not is_nested:
            _shut_down()


@contextmanager
def ray_session(cluster: str = "auto") -> Iterator[None]:
    """Connect to Ray for the time of a block: to a running or configured one, or a new local one.

    Args:
        cluster: "local" starts one for this run, even if another is running.

    Raises:
        ConfigError: for a Ray that can't be joined.
        RunError: for a Ray that can't be started.
    """
    global _is_ours
    if _is_connected():
        if cluster == "local" and not _is_ours:
            raise ConfigError(
                "actors.cluster is local, but this process is already connected to a Ray: call "
                "ray.shutdown() first, or leave actors.cluster out"
            )
        yield
        return
    report_ray()
    _is_ours = True
    try:
        with _keep_sigterm_handler():
            _start(cluster)
        yield
    finally:
        if not _shuts_down_later:
            _shut_down()


def _is_connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _shut_down() -> None:
    """Shut down the Ray that a session started.

    A thread that uses Ray meanwhile ends the whole process: `_Exit(1)`, from C++. So wait for the
    threads of Ray Data, and disable garbage collection, which could free an object of Ray in
    another thread.
    """
    global _is_ours
    if not _is_ours:
        return
    _is_ours = False
    ray = sys.modules.get("ray")
    if ray is None:  # an interrupt came during the import
        return
    until = time.monotonic() + _THREADS_S
    for thread in threading.enumerate():
        if _belongs_to_ray_data(thread):
            thread.join(max(until - time.monotonic(), 0))
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        _set_raylet_messages(shown=True)
        if enabled:
            gc.enable()


def _belongs_to_ray_data(thread: threading.Thread) -> bool:
    work = getattr(thread, "_target", None) or type(thread)
    return (getattr(work, "__module__", None) or "").startswith("ray.data.")


def joins_ray(cluster: str) -> bool:
    """Return whether a session joins a running Ray instead of starting one."""
    return _is_connected() or (
        cluster != "local" and bool(_read_configured_address() or _is_running_here())
    )


def _read_configured_address() -> str:
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def _start(cluster: str) -> None:
    address = "" if cluster == "local" else _read_configured_address()
    _check_address(address)
    joins = joins_ray(cluster)
    # Ray Data gathers usage statistics in a thread that never ends, and `_shut_down` would wait.
    os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")
    with waiting("joining Ray" if joins else "starting Ray"):
        import ray
        import ray.data

        # After the import, which sets the level. pipemill reports what a user needs to know.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        _set_raylet_messages(shown=False)
        # For Ray's C++ code in this process.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            with _silence_stderr():
                if joins:
                    ray.init(log_to_driver=False, logging_level=logging.CRITICAL)
                else:
                    _start_local()
        except BaseException as error:
            ray.shutdown()
            if not isinstance(error, Exception):
                raise
            raise _explain_no_ray(error, joins) from error
    check_interrupts()
    if joins:
        log(f"Ray: joined {_find_address(address)}, {_describe_size()}")


def _explain_no_ray(error: Exception, joins: bool) -> Exception:
    """Return the error to raise for a Ray that did not start, or that could not be joined."""
    text = str(error).strip() or type(error).__name__
    reason = text.splitlines()[0]
    if not joins:
        # Ray raises no special exception for it.
        return RunError(f"Ray could not be started ({reason}); run again to resume")
    where = f"the Ray at {_read_configured_address() or _find_address_file().read_text().strip()}"
    local = "or set actors.cluster to local to start a Ray for this run"
    if text.startswith("Version mismatch"):
        return ConfigError(
            f"{where} could not be joined ({' '.join(text.split())}): use the same versions as "
            f"there, {local}"
        )
    # Something listens there, and Ray gives up after some seconds, mostly for lack of the token.
    if isinstance(error, ConnectionError) or type(error).__name__ == "AuthenticationError":
        return ConfigError(
            f"{where} could not be joined ({reason.partition('. ')[0].rstrip('.')}): if it asks "
            "for a token, as Ray 2.60 does, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH as on "
            f"its head, {local}"
        )
    return RunError(f"{where} could not be joined ({reason}); run again to resume")


def _set_raylet_messages(*, shown: bool) -> None:
    """Show or hide Ray's messages about dead workers and retries, for which it has no setting.

    A row that kills a worker becomes a dead letter, which pipemill reports.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        global _print_to_stdstream
        _print_to_stdstream = _print_to_stdstream or worker.print_to_stdstream
        worker.print_to_stdstream = _print_to_stdstream if shown else _print_nothing


def _print_nothing(*_: object, **__: object) -> None:
    return


def _find_address(configured: str) -> str:
    """Return HOST:PORT of the head that was joined."""
    import ray

    if configured.startswith("ray://"):
        return configured.removeprefix("ray://")
    return ray.get_runtime_context().gcs_address


def _describe_size() -> str:
    import ray

    total = ray.cluster_resources()
    counts = [(total.get("CPU", 0), "CPU"), (total.get("GPU", 0), "GPU")]
    return ", ".join(
        f"{count:g} {name}{'' if count == 1 else 's'}"
        for count, name in counts
        if count or name == "CPU"
    )


def check_output_lasts(path: str) -> None:
    """Raise ConfigError for an output in Ray's copy of the working directory.

    Ray makes the copy for a job, and deletes it afterwards.
    """
    if _is_in_copy(path):
        raise ConfigError(
            f"output.path {path} is {absolute(path)}, in the copy of the working directory that "
            "Ray made for this job and deletes after it: name an absolute path, or a URL that "
            "every node can reach"
        )


def check_input_stays(inputs: object) -> None:
    """Raise ConfigError for an input in Ray's copy of the working directory.

    After a change in the working directory the next job's copy lies elsewhere. The same file would
    then be taken for a new one, and its rows would be in the output twice.
    """
    paths = [inputs] if isinstance(inputs, str) else inputs if isinstance(inputs, list) else []
    for path in paths:
        if _is_in_copy(path):
            raise ConfigError(
                f"input.path {path} is {absolute(path)}, in the copy of the working directory "
                "that Ray made for this job. The next job's copy may lie elsewhere, and that job "
                "could not resume this output: name an absolute path, or a URL that every node "
                "can reach"
            )


def _is_in_copy(path: str) -> bool:
    copy = os.path.realpath(absolute(path)) if "://" not in path else path
    return _WORKING_COPY in f"{copy}/"


def _check_address(address: str) -> None:
    """Raise ConfigError if nothing listens at an address: `ray.init` would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # no address, or one that Ray finds itself: "auto"
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray answers at {address} (RAY_ADDRESS: {error}): start a cluster there, or unset "
            "it to run on this machine"
        ) from None


def _start_local() -> None:
    import ray

    ray.init("local", log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False)


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Keep this process's handler of SIGTERM: Ray would install one that exits."""
    handler = signal.getsignal(signal.SIGTERM)
    keeps = callable(handler) and threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit:
        if not keeps:
            raise
        raise KeyboardInterrupt from None
    finally:
        if keeps:
            signal.signal(signal.SIGTERM, handler)


def joins_other_machines(cluster: str) -> bool:
    """Return whether a session uses a Ray that may have other machines than this one."""
    if not _is_connected():
        return joins_ray(cluster)
    here = socket.gethostname()
    nodes = sys.modules["ray"].nodes()
    return any(node["NodeManagerHostname"] != here for node in nodes if node["Alive"])


def _is_running_here() -> bool:
    """Return whether something answers at the address that `ray start` left on this machine.

    A head that was killed leaves one, too, and `ray.init` would wait for it for minutes.
    """
    try:
        host, _, port = _find_address_file().read_text().strip().rpartition(":")
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


def _find_address_file() -> Path:
    """Return the file in which `ray start` leaves the head's address, without importing Ray."""
    on_linux = os.environ.get("TMPDIR", "/tmp") if sys.platform.startswith("linux") else None
    default = "/tmp" if sys.platform == "darwin" else tempfile.gettempdir()
    return Path(os.environ.get("RAY_TMPDIR", on_linux or default), "ray", "ray_current_cluster")


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Silence stderr while Ray starts: its C++ code prints its log level there."""
    saved = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


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
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    tasks = 2 * TASK_CPUS if placement == "staged" else 0
    free = [dict(node) for node in nodes]
    if tasks:
        largest = max(free, key=lambda node: node.get("CPU", 0))
        largest["CPU"] = largest.get("CPU", 0) - tasks
    fit = sum(_count_actors(node, actors) for node in free)
    if fit == 0 and not _autoscales():
        raise ConfigError(_explain_no_room(nodes, actors, tasks))
    wanted = fit if actors.max == "auto" else actors.max
    most = max(min(wanted, splits), 1)
    if not _autoscales():
        if tasks:
            most = min(most, fit)  # more would take the tasks' CPUs
        return max(min(fit, most), 1), most
    # Requests that do not fit yet make the cluster grow.
    return max(min(fit, most), min(actors.min, most)), most


def _count_actors(node: dict[str, float], actors: ActorsSection) -> int:
    by_cpu = math.floor(node.get("CPU", 0) / actors.num_cpus + 1e-9)
    if not actors.gpus_each:
        return max(by_cpu, 0)
    by_gpu = math.floor(node.get("GPU", 0) / actors.gpus_each + 1e-9)
    return max(min(by_cpu, by_gpu), 0)


def _explain_no_room(nodes: list[dict[str, float]], actors: ActorsSection, tasks: float) -> str:
    cpus = max((node.get("CPU", 0) for node in nodes), default=0)
    gpus = max((node.get("GPU", 0) for node in nodes), default=0)
    if actors.gpus_each > gpus:
        return (
            f"an actor asks for {actors.gpus_each:g} GPU (actors.num_gpus), but the largest node "
            f"of this Ray cluster has {gpus:g}: set actors.num_gpus to 0 for CPU"
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


def _autoscales() -> bool:
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
    types = status.get("autoscaler_report", {}).get("active_nodes", {})
    return any(not name.startswith("node_") for name in types)
