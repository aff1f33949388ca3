"""Start or join Ray without the messages that no user needs, and explain why that failed."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from pipemill.errors import ConfigError, RunError

from .supervisor import check_interrupts

# Ray's function that prints the messages of raylets, while it is replaced.
_print_to_stdstream: Callable[..., None] | None = None
# Ray itself needs some MiB for its logs; rows are elsewhere.
_FREE_BYTES = 50 << 20


def initialize_ray(joins: bool) -> None:
    """Connect this process to the Ray that runs, or to a new one. Raises what Ray does."""
    import ray

    with _silence_stderr():
        if joins:
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL)
        else:
            _start_local()


def explain_no_ray(error: Exception, joins: str) -> Exception:
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
    if text.startswith("Could not find any running Ray"):
        return ConfigError(
            f"no Ray runs on this machine (RAY_ADDRESS={joins}): start one, or unset RAY_ADDRESS"
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


def show_raylet_messages(shown: bool) -> None:
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


def find_address(configured: str) -> str:
    """Return HOST:PORT of the head that was joined."""
    import ray

    if configured.startswith("ray://"):
        return configured.removeprefix("ray://")
    return ray.get_runtime_context().gcs_address


def describe_size() -> str:
    """Return the CPUs and GPUs of the Ray that was joined."""
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
        try:
            ray.init(
                "local",
                job_config=DriversOrder(),
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                include_dashboard=False,
            )
        except BaseException as error:
            _end_started_processes(error)
            raise

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


def _end_started_processes(error: BaseException) -> None:
    """End the processes of a Ray whose start raised this error, or was interrupted.

    They would live as long as this process. Once all are up, `ray.shutdown` ends them, after it has
    left them: Ray's code in this process ends it when the others vanish.
    """
    from ray._private import worker
    from ray._private.node import Node
    from ray._private.services import ProcessInfo

    if worker._global_node is not None:
        return
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.copy().values():
            if isinstance(value, Node):
                value.kill_all_processes(check_alive=False, allow_graceful=False)
            elif isinstance(value, ProcessInfo):  # the one that it waits for
                value.process.kill()
            elif isinstance(value, Popen) and value.pid:  # the one that it has just started
                value.kill()


def _is_about_home(error: Exception) -> bool:
    """Tell whether Ray could not write its token to ~/.ray: there is no home, or it is closed."""
    if isinstance(error, OSError):
        return Path(str(error.filename)).name in (".ray", "auth_token")
    return "home directory" in str(error)


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
