"""Start or join Ray for the time of a block, and shut down what was started."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipemill.actors.monitoring.ray_connection import find_connected_ray

from pipemill.errors import ConfigError

from ..planning.user_code import find_hiding_files
from .progress import log, waiting
from .ray_address import check_configured_address, find_ray, read_configured_address
from .ray_start import (
    describe_size,
    explain_no_ray,
    find_address,
    initialize_ray,
    show_raylet_messages,
)
from .supervisor import check_interrupts, report_ray

# Whether pipemill started or joined Ray, and how many blocks of code keep it, in any thread.
_is_ours = False
_blocks = 0
_lock = threading.RLock()
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
            _stop_fetching(thread)
            thread.join(max(until - time.monotonic(), 0))
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        show_raylet_messages(True)
        if enabled:
            gc.enable()


def _belongs_to_ray_data(thread: threading.Thread) -> bool:
    work = getattr(thread, "_target", None) or type(thread)
    return (getattr(work, "__module__", None) or "").startswith("ray.data.")


def _stop_fetching(thread: threading.Thread) -> None:
    """Stop a thread that waits for work: a second interrupt keeps Ray Data from doing so."""
    fetcher = getattr(getattr(thread, "_target", None), "__self__", None)
    if stop := getattr(fetcher, "stop", None):
        stop()


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
        show_raylet_messages(False)
        try:
            with _silence_ray_code():
                initialize_ray(bool(joins))
        except BaseException as error:
            ray.shutdown()
            if not isinstance(error, Exception):
                raise
            raise explain_no_ray(error, joins) from error
    check_interrupts()
    if joins:
        log(f"Ray: joined {find_address(address)}, {describe_size()}")


@contextmanager
def _silence_ray_code() -> Iterator[None]:
    """Silence Ray's C++ code in this process, which looks for a level when it connects.

    A Ray that the caller starts later would inherit it, and each of its workers would say so.
    """
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    try:
        yield
    finally:
        os.environ.pop("RAY_BACKEND_LOG_LEVEL", None)


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
