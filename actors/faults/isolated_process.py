"""A process that runs stages on the rows it is sent, and may die of them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from pipemill.errors import error_message

from ..batch import Batch


class ProcessDied(RuntimeError):
    """The process died. stage: what it was at; status: as `subprocess` gives it."""

    def __init__(self, stage: str, status: int) -> None:
        self.stage, self.status = stage, status
        super().__init__(describe_exit(status))


class ProcessError(RuntimeError):
    """An exception in the process that is no row's fault."""


class IsolatedProcess:
    """A process of its own with a task of its own, loaded when first needed.

    load: loads the task; both it and `source` are pickled.
    """

    def __init__(self, load: Callable[[], Any], source: Any = None) -> None:
        # The same modules as here: a worker of Ray has folders that a fresh Python knows not.
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        threading.Thread(target=self._bury, daemon=True).start()
        self._first: tuple[Any, Any] | None = (load, source)

    def read(self, split: dict[str, Any]) -> Batch:
        """Raises ChildDied, or ChildError."""
        return self._ask("read", split)

    def run(self, steps: tuple[str, ...], batch: Batch) -> Batch:
        """Methods of `Stages`, one after the other. Raises ChildDied, or ChildError."""
        return self._ask(steps, batch)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()  # type: ignore[union-attr]
            except BrokenPipeError:
                continue

    def _ask(self, steps: Any, payload: Any) -> Batch:
        stage = "start"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            if self._first is not None:
                _send(self._process.stdin, self._first)
                self._first = None
            _send(self._process.stdin, (steps, payload))
            while True:
                kind, value = pickle.load(self._process.stdout)
                if kind == "stage":
                    stage = value
                elif kind == "error":
                    raise ProcessError(value)
                else:
                    return value
        except (OSError, EOFError, pickle.UnpicklingError):
            raise ProcessDied(stage, self._process.wait()) from None

    def _bury(self) -> None:
        """Whatever the process has started would keep its pipe open, and the reader waiting."""
        self._process.wait()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def describe_exit(status: int) -> str:
    """Say how a process ended, of this exit status as `subprocess` gives it."""
    if status >= 0:
        return f"its process ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"its process was killed by signal {-status} ({name})"


def _send(pipe: IO[bytes], message: Any) -> None:
    pickle.dump(message, pipe, protocol=5)
    pipe.flush()


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    load, source = pickle.load(requests)
    stages = None
    while True:
        try:
            steps, payload = pickle.load(requests)
        except EOFError:  # the parent is done, or dead
            return
        try:
            if steps == "read":
                _send(replies, ("stage", "read"))
                batch = source.read(payload)
            else:
                if stages is None:
                    _send(replies, ("stage", "load"))
                    stages = load()
                batch = payload
                for step in steps:
                    _send(replies, ("stage", step))
                    batch = getattr(stages, step)(batch)
            _send(replies, ("batch", batch))
        except Exception as error:
            _send(replies, ("error", f"{type(error).__name__}: {error_message(error)}"))


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a task prints must not get among the replies
    _serve(sys.stdin.buffer, own)
