"""Python processes that a worker or a driver starts, and the pickled messages between them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

# What a read or write raises when the other process has died.
PROCESS_GONE = (OSError, EOFError, pickle.UnpicklingError)


def start_python(
    module: str,
    *,
    environment: Mapping[str, str] | None = None,
    stderr: IO[bytes] | int | None = None,
    new_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Run a module as a program that can import what this process can; stdin and stdout are pipes.

    Args:
        environment: variables that differ from those of this process.
        new_session: whether it gets its own process group, which is killed when it ends.
    """
    # Ray workers have entries in sys.path that a new interpreter lacks.
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    process = subprocess.Popen(
        # Without -P the current folder comes first: a queue.py there would hide Python's.
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        start_new_session=new_session,
    )
    if new_session:
        threading.Thread(target=_kill_group_after, args=(process,), daemon=True).start()
    return process


def end_process(process: subprocess.Popen[bytes]) -> int:
    """Kill a process, close its pipes, and return its exit status."""
    process.kill()
    status = process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    return status


def send(pipe: IO[bytes] | None, message: Any) -> None:
    assert pipe is not None
    pickle.dump(message, pipe, protocol=5)
    pipe.flush()


def receive(pipe: IO[bytes] | None) -> Any:
    assert pipe is not None
    return pickle.load(pipe)


def take_over_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Return stdin and stdout of this process for messages; what is printed goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, replies


def describe_exit(status: int) -> str:
    """Say how a process ended.

    Args:
        status: as `subprocess` returns it.
    """
    if status >= 0:
        return f"its process ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"its process was killed by signal {-status} ({name})"


def _kill_group_after(process: subprocess.Popen[bytes]) -> None:
    """Kill what the process leaves behind: it would keep the pipe open, and the reader waiting."""
    process.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
