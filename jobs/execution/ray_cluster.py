"""Ray itself: start it or join it, and see what fits."""

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

from pipemill.actors.storage.filesystem import absolute

from pipemill.errors import ConfigError, RunError

from ..config.job import ActorsSection
from .progress import log, waiting
from .supervisor import check_interrupts, report_ray

# What the read and write tasks of the staged placement hold. Unlike an actor's whole CPUs, or
# Ray would fuse them into the actors' operator.
TASK_CPUS = 0.25


# The folder of the copies that Ray makes of working directories (`ray job submit --working-dir`).
_WORKING_COPY = "/runtime_resources/working_dir_files/"

# A Ray that pipemill started or joined, and whether it is shut down later than its session.
_ours = False
_later = False
# Ray's function for the messages of its raylets, while it is replaced.
_print_to_stdstream: Callable[..., None] | None = None
# So long a shutdown waits for Ray's threads in this process.
_THREADS_S = 30.0


@contextmanager
def ray_until_end() -> Iterator[None]:
    """Leave Ray up when a session within this block ends; shut it down at the end of the block."""
    global _later
    _later = True
    try:
        yield
    finally:
        _later = False
        _shut_down()


@contextmanager
def ray_session(cluster: str = "auto") -> Iterator[None]:
    """Ray for the time of a run: the one that is running or configured, else a local one.

    cluster: "local" starts one for this run, even if another is running.
    """
    global _ours
    if _is_connected():
        if cluster == "local" and not _ours:
            raise ConfigError(
                "actors.cluster is local, but this process is connected to a Ray already: call "
                "ray.shutdown() first, or leave actors.cluster out"
            )
        yield
        return
    report_ray()
    _ours = True
    try:
        with _own_sigterm():
            _start(cluster)
        yield
    finally:
        if not _later:
            _shut_down()


def _is_connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _shut_down() -> None:
    """Shut down the Ray that a session started.

    A thread that touches Ray meanwhile ends the whole process: `_Exit(1)`, from C++. So wait for
    those that Ray Data has, and let no garbage collection in another thread free an object of Ray.
    """
    global _ours
    if not _ours:
        return
    _ours = False
    ray = sys.modules.get("ray")
    if ray is None:  # interrupted while it was imported
        return
    until = time.monotonic() + _THREADS_S
    for thread in threading.enumerate():
        if _is_of_ray_data(thread):
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


def _is_of_ray_data(thread: threading.Thread) -> bool:
    work = getattr(thread, "_target", None) or type(thread)
    return (getattr(work, "__module__", None) or "").startswith("ray.data.")


def joins_ray(cluster: str) -> bool:
    """Whether a session uses a Ray that is running, instead of starting one."""
    return _is_connected() or (
        cluster != "local" and bool(_configured_address() or _running_here())
    )


def _configured_address() -> str:
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def _start(cluster: str) -> None:
    address = "" if cluster == "local" else _configured_address()
    _check_address(address)
    joins = joins_ray(cluster)
    # Ray Data's statistics of use are gathered in a thread that never ends, as `_shut_down` wants.
    os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")
    with waiting("joining Ray" if joins else "starting Ray"):
        import ray
        import ray.data

        # After the import, which sets the level. What a user needs to know pipemill says itself.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        _set_raylet_messages(shown=False)
        # Ray's C++ side in this process.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            with _silent_stderr():
                if joins:
                    ray.init(log_to_driver=False, logging_level=logging.CRITICAL)
                else:
                    _start_local()
        except BaseException as error:
            ray.shutdown()
            if not isinstance(error, Exception):
                raise
            raise _not_there(error, joins) from error
    check_interrupts()
    if joins:
        log(f"Ray: joined {_address(address)}, {_size()}")


def _not_there(error: Exception, joins: bool) -> Exception:
    """Return what to raise for a Ray that did not start, or that could not be joined."""
    text = str(error).strip() or type(error).__name__
    reason = text.splitlines()[0]
    if not joins:
        # Ray has no exception of its own for it.
        return RunError(f"Ray could not be started ({reason}); run again to resume")
    where = f"the Ray at {_configured_address() or _address_file().read_text().strip()}"
    local = "or set actors.cluster to local for a Ray of this run's own"
    if text.startswith("Version mismatch"):
        return ConfigError(
            f"{where} could not be joined ({' '.join(text.split())}): use the same versions as "
            f"there, {local}"
        )
    # Something listens there, and Ray gives up after some seconds: for the token, mostly.
    if isinstance(error, ConnectionError) or type(error).__name__ == "AuthenticationError":
        return ConfigError(
            f"{where} could not be joined ({reason.partition('. ')[0].rstrip('.')}): if it asks "
            "for a token, as Ray 2.60 does, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH as on "
            f"its head, {local}"
        )
    return RunError(f"{where} could not be joined ({reason}); run again to resume")


def _set_raylet_messages(*, shown: bool) -> None:
    """Keep off the terminal what Ray tells every driver about dead workers and retries; it has no
    setting for that. A row that kills becomes a dead letter, which pipemill says."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        global _print_to_stdstream
        _print_to_stdstream = _print_to_stdstream or worker.print_to_stdstream
        worker.print_to_stdstream = _print_to_stdstream if shown else _print_nothing


def _print_nothing(*_: object, **__: object) -> None:
    return


def _address(given: str) -> str:
    """Return HOST:PORT of the head that was joined."""
    import ray

    if given.startswith("ray://"):
        return given.removeprefix("ray://")
    return ray.get_runtime_context().gcs_address


def _size() -> str:
    import ray

    total = ray.cluster_resources()
    counts = [(total.get("CPU", 0), "CPU"), (total.get("GPU", 0), "GPU")]
    return ", ".join(
        f"{count:g} {name}{'' if count == 1 else 's'}"
        for count, name in counts
        if count or name == "CPU"
    )


def check_output_lasts(path: str) -> None:
    """Raise ConfigError for an output in the copy of the working directory that Ray makes for a
    job, and deletes after it."""
    if _is_in_copy(path):
        raise ConfigError(
            f"output.path {path} is {absolute(path)}, in the copy of the working directory that "
            "Ray made for this job and deletes after it: name an absolute path, or a URL that "
            "every node can reach"
        )


def check_input_stays(given: object) -> None:
    """Raise ConfigError for an input in such a copy.

    After a change in the working directory the next job's copy has another place, so that the same
    file would be taken for a new one, and its rows would be in the output twice.
    """
    paths = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    for path in paths:
        if _is_in_copy(path):
            raise ConfigError(
                f"input.path {path} is {absolute(path)}, in the copy of the working directory "
                "that Ray made for this job; the next job's copy may lie elsewhere and could not "
                "go on with this one's output: name an absolute path, or a URL that every node "
                "can reach"
            )


def _is_in_copy(path: str) -> bool:
    copy = os.path.realpath(absolute(path)) if "://" not in path else path
    return _WORKING_COPY in f"{copy}/"


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

    ray.init("local", log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM for itself and exits; whoever set a handler before it means to resume."""
    handler = signal.getsignal(signal.SIGTERM)
    own = callable(handler) and threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit:
        if not own:
            raise
        raise KeyboardInterrupt from None
    finally:
        if own:
            signal.signal(signal.SIGTERM, handler)


def joins_other_machines(cluster: str) -> bool:
    """Return whether a session uses a Ray that may have machines beside this one."""
    if not _is_connected():
        return joins_ray(cluster)
    here = socket.gethostname()
    nodes = sys.modules["ray"].nodes()
    return any(node["NodeManagerHostname"] != here for node in nodes if node["Alive"])


def _running_here() -> bool:
    """Whether a `ray start` on this machine left an address at which something answers.

    A head that was killed leaves one too, and `ray.init` would wait for it for minutes.
    """
    try:
        host, _, port = _address_file().read_text().strip().rpartition(":")
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


def _address_file() -> Path:
    """Return where `ray start` leaves the address of the head; Ray need not be imported."""
    on_linux = os.environ.get("TMPDIR", "/tmp") if sys.platform.startswith("linux") else None
    default = "/tmp" if sys.platform == "darwin" else tempfile.gettempdir()
    return Path(os.environ.get("RAY_TMPDIR", on_linux or default), "ray", "ray_current_cluster")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """While Ray starts: its C++ side says on stderr which log level it was given."""
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
    if not actors.gpus_each:
        return max(by_cpu, 0)
    by_gpu = math.floor(node.get("GPU", 0) / actors.gpus_each + 1e-9)
    return max(min(by_cpu, by_gpu), 0)


def _nothing_fits(nodes: list[dict[str, float]], actors: ActorsSection, tasks: float) -> str:
    cpus = max((node.get("CPU", 0) for node in nodes), default=0)
    gpus = max((node.get("GPU", 0) for node in nodes), default=0)
    if actors.gpus_each > gpus:
        return (
            f"an actor asks for {actors.gpus_each:g} GPU (actors.num_gpus), but the largest node "
            f"of this Ray cluster has {gpus:g}: set actors.num_gpus to 0 for CPU"
        )
    extra = f" beside {tasks:g} for the read and write tasks" if tasks else ""
    room = cpus - tasks
    return (
        f"an actor asks for {actors.num_cpus:g} CPU (actors.num_cpus){extra}, but the largest node "
        f"of this Ray cluster has {cpus:g}: set actors.num_cpus to {max(room, 0.25):g} or less"
        + (", or actors.placement to fused" if tasks else "")
    )


def in_use(actors: ActorsSection) -> str | None:
    """Return what others hold, so that not even one actor can start now."""
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    for name, needs in (("CPU", actors.num_cpus), ("GPU", actors.gpus_each)):
        have, left = total.get(name, 0), free.get(name, 0)
        if left < needs <= have:
            return f"waits for {name}s ({have - left:g} of {have:g} in use)"
    return None


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
