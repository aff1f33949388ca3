"""A process that runs stages on the rows it is sent, and may die of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from pipemill.errors import error_message

from ..batch import Batch
from ..child_process import (
    PROCESS_GONE,
    describe_exit,
    end_process,
    receive,
    send,
    start_python,
    take_over_pipes,
)
from ..split import Split, SplitReader


class ProcessDied(RuntimeError):
    """The process died.

    Attributes:
        stage: what it was doing.
        status: its exit status, as `subprocess` returns it.
    """

    def __init__(self, stage: str, status: int) -> None:
        self.stage, self.status = stage, status
        super().__init__(describe_exit(status))


class ProcessError(RuntimeError):
    """An exception in the process that no row caused."""


class IsolatedProcess:
    """A separate process with a separate copy of the task, loaded when it is first needed.

    Args:
        load: loads the task. It is pickled, and so is `source`.
        source: reads splits; None if none will be read.
    """

    def __init__(self, load: Callable[[], object], source: SplitReader | None = None) -> None:
        self._process = start_python(__name__)
        self._first: tuple[Callable[[], object], SplitReader | None] | None = (load, source)

    def read(self, split: Split) -> Batch:
        """Read a split in the process. Raises ProcessDied, ProcessError."""
        return self._request("read", split)

    def run(self, steps: tuple[str, ...], batch: Batch) -> Batch:
        """Run methods of `Stages`, one after the other. Raises ProcessDied, ProcessError."""
        return self._request(steps, batch)

    def close(self) -> None:
        end_process(self._process)

    def _request(self, steps: str | tuple[str, ...], payload: Split | Batch) -> Batch:
        stage = "start"
        try:
            if self._first is not None:
                send(self._process.stdin, self._first)
                self._first = None
            send(self._process.stdin, (steps, payload))
            while True:
                reply, value = receive(self._process.stdout)
                if reply == "stage":
                    stage = value
                elif reply == "error":
                    raise ProcessError(value)
                else:
                    return value
        except PROCESS_GONE:
            raise ProcessDied(stage, self._process.wait()) from None


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    load, source = receive(requests)
    stages = None
    while True:
        try:
            steps, payload = receive(requests)
        except EOFError:  # the parent is done, or dead
            return
        try:
            if steps == "read":
                send(replies, ("stage", "read"))
                batch = source.read(payload)
            else:
                if stages is None:
                    send(replies, ("stage", "load"))
                    stages = load()
                batch = payload
                for step in steps:
                    send(replies, ("stage", step))
                    batch = getattr(stages, step)(batch)
            send(replies, ("batch", batch))
        except Exception as error:
            send(replies, ("error", f"{type(error).__name__}: {error_message(error)}"))


if __name__ == "__main__":
    _serve(*take_over_pipes())
