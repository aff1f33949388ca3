"""Start or join Ray."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipemill.actors.monitoring.ray_connection import find_connected_ray

from pipemill.errors import ConfigError, RunError

from ..planning.user_code import find_hiding_files
from .progress import log, waiting
from .ray_address import check_configured_address, find_ray, read_configured_address
from .supervisor import check_interrupts, report_ray

# Whether pipemill started or joined Ray, and how many blocks of code keep it, in any thread.
_is_ours = False
_blocks = 0
_lock = threading.RLock()
# Ray's function that prints the messages of raylets, while it is replaced.
_print_to_stdstream: Callable[..., None] | None = None
# Ray itself needs some MiB for its logs; rows are elsewhere.
_FREE_BYTES = 50 << 20
# How long a shutdown waits for Ray's threads in this process.
_THREADS_S = 30.0


@contextmanager
def ray_until_end() -> Iterator[None]:
    """Keep Ray running when a session in this block ends; shut it down at the end of the block.

    Of blocks that are nested, or run in several threads, the last one shuts it down.
    """
    global _blocks
    with _lock:
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
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
    with ray_until_end():
        with _lock:  # another thread may start it now
            _connect(cluster)
        yield


def _connect(cluster: str) -> None:
    global _is_ours
    if find_connected_ray() is None:
        report_ray()
        _is_ours = True
        with _keep_sigterm_handler():
            _start(cluster)
    elif cluster == "local" and not _is_ours:
        raise ConfigError(
            "actors.cluster is local, but this process is already connected to a Ray: call "
            "ray.shutdown() first, or leave actors.cluster out"
        )


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
    return find_connected_ray() is not None or bool(find_ray(cluster))


def _start(cluster: str) -> None:
    address = "" if cluster == "local" else read_configured_address()
    check_configured_address(address)
    joins = find_ray(cluster)
    if joins and (hidden := find_hiding_files(Path.cwd())):
        log(
            f"{', '.join(hidden)} in the current folder, which comes first for Ray's workers: they "
            "import it instead of the library of that name, and may never start. Rename it, or "
            "start the run in another folder"
        )
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


def _explain_no_ray(error: Exception, joins: str) -> Exception:
    """Return the error to raise for a Ray that did not start, or that could not be joined.

    Args:
        error: What Ray raised.
        joins: The address of the Ray to join; "" if one was to be started.
    """
    text = str(error).strip() or type(error).__name__
    reason = text.splitlines()[0]
    if not joins:
        # Ray raises no special exception for it.
        return RunError(f"Ray could not be started ({reason}); {_advise_on_ray(reason)}")
    where = f"the Ray at {joins}"
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


def _advise_on_ray(reason: str) -> str:
    """Return what to do for a Ray that did not start: its folder may not be fit for it."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        free = 0
    fault = ""
    if "AF_UNIX" in reason:  # the sockets there may have 107 bytes
        fault = "has too long a name"
    elif not os.access(folder, os.W_OK | os.X_OK):
        fault = "can't be written to"
    elif free < _FREE_BYTES:
        fault = f"has only {free >> 20} MiB left"
    if not fault:
        return "run again to resume"
    return f"{folder}, where Ray keeps its files, {fault}: name another folder in RAY_TMPDIR"


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


def _start_local() -> None:
    import ray
    from ray.job_config import JobConfig

    class DriversOrder(JobConfig):
        """Makes workers find modules as this process does: Ray puts the current folder first."""

        def _serialize(self) -> str:
            # Another version of Ray may have another attribute, and then keeps its own order.
            found = getattr(self, "_py_driver_sys_path", [])
            found.extend(os.path.abspath(p) for p in reversed(sys.path) if isinstance(p, str))
            return super()._serialize()

    def start() -> None:
        ray.init(
            "local",
            job_config=DriversOrder(),
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            include_dashboard=False,
        )

    try:
        start()
    except Exception as error:
        # Ray waits 30 seconds for its processes, which is not enough on a machine that is busy.
        if "timed out during startup" in str(error):
            ray.shutdown()
            check_interrupts()
            start()
        elif _is_about_home(error):
            # For the processes that Ray starts. This one remembers it, so later starts need it too.
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            start()
        else:
            raise


def _is_about_home(error: Exception) -> bool:
    """Tell whether Ray could not write its token to ~/.ray: there is no home, or it is closed."""
    if isinstance(error, OSError):
        return Path(str(error.filename)).name in (".ray", "auth_token")
    return "home directory" in str(error)


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
    ray = find_connected_ray()
    if ray is None:
        return joins_ray(cluster)
    here = socket.gethostname()
    nodes = ray.nodes()
    return any(node["NodeManagerHostname"] != here for node in nodes if node["Alive"])


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
