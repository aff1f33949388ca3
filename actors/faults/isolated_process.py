"""A process that runs stages on the rows that it gets, and may die of them."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING

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
from .blame import JudgedError, find_blame
from .load_errors import describe_load_error
from .process_end import BROKEN, Farewell, before_end, end_this_process, set_replaceable

if TYPE_CHECKING:
    from ..compute.cascade import Cascade
    from ..compute.stages import Stages

# Requests that are answered side by side; more wait.
_CALLS = 4


class ProcessDied(JudgedError):
    """The process died.

    Attributes:
        stage: what it was doing.
        status: its exit status, as `subprocess` returns it.
    """

    def __init__(self, stage: str, status: int, reason: str | None = None) -> None:
        """reason: why the process ended itself, if it did."""
        self.stage, self.status = stage, status
        super().__init__(f"its process ended itself: {reason}" if reason else describe_exit(status))


class ProcessError(JudgedError):
    """An exception in the process that no row caused."""


@dataclass
class _Request:
    """A request that waits for its answer.

    stage: what the process is doing for it. reason: why the process ends itself.
    """

    stage: str = "start"
    reason: str | None = None
    answer: Future[Batch] = field(default_factory=Future)


class IsolatedProcess:
    """A separate process with a separate copy of the task, loaded when it is first needed.

    Several threads may ask at the same time: the process answers them side by side.

    Args:
        load: loads the task. It is pickled, and so is `source`.
        source: reads splits; None if none will be read.
    """

    def __init__(self, load: Callable[[], object], source: SplitReader | None = None) -> None:
        self._process = start_python(__name__)
        self._first: tuple[Callable[[], object], SplitReader | None] | None = (load, source)
        self._sending, self._waiting = threading.Lock(), threading.Lock()
        self._requests: dict[int, _Request] = {}
        self._numbers = itertools.count()
        self._status: int | None = None
        threading.Thread(target=self._receive_answers, daemon=True).start()

    @property
    def is_alive(self) -> bool:
        return self._status is None

    def read(self, split: Split) -> Batch:
        """Read a split in the process. Raises ProcessDied, ProcessError."""
        return self._ask((), split)

    def run(self, steps: tuple[str, ...] | None, batch: Batch) -> Batch:
        """Run steps of the task, or all of them (None). Raises ProcessDied, ProcessError."""
        return self._ask(steps, batch)

    def close(self) -> None:
        end_process(self._process)

    def _ask(self, steps: tuple[str, ...] | None, payload: Split | Batch) -> Batch:
        number, request = next(self._numbers), _Request()
        with self._waiting:
            if self._status is not None:
                raise ProcessDied("start", self._status)
            self._requests[number] = request
        with suppress(*PROCESS_GONE), self._sending:  # the thread that receives says what happened
            if self._first is not None:
                send(self._process.stdin, self._first)
                self._first = None
            send(self._process.stdin, (number, steps, payload))
        return request.answer.result()

    def _receive_answers(self) -> None:
        """Hand each answer to the call that waits for it, until the process is gone."""
        try:
            while True:
                number, reply, value = receive(self._process.stdout)
                request = self._requests[number]
                if reply in ("stage", "reason"):
                    setattr(request, reply, value)
                    continue
                del self._requests[number]
                if reply == "error":
                    request.answer.set_exception(ProcessError(value))
                else:
                    request.answer.set_result(value)
        except (*PROCESS_GONE, ValueError):  # a ValueError: `close` has closed the pipe
            pass
        except Exception:  # an answer that can't be received: each call would wait forever
            self._process.kill()
        with self._waiting:
            self._status = self._process.wait()
            for request in self._requests.values():
                died = ProcessDied(request.stage, self._status, request.reason)
                request.answer.set_exception(died)


class _Server:
    """Answers requests in the process."""

    def __init__(
        self, load: Callable[[], Stages | Cascade], source: SplitReader | None, replies: IO[bytes]
    ) -> None:
        self._load, self._source, self._replies = load, source, replies
        self._sending, self._loading = threading.Lock(), threading.Lock()
        self._stages: Stages | Cascade | None = None

    def answer(self, number: int, steps: tuple[str, ...] | None, payload: Split | Batch) -> None:
        farewell = Farewell(partial(self._reply, number, "reason"), lambda: None)
        with before_end(farewell):
            try:
                self._reply(number, "batch", self._compute(number, steps, payload))
            except Exception as error:
                if find_blame(error) == "process":
                    end_this_process(describe_load_error(error), BROKEN)
                self._reply(number, "error", f"{type(error).__name__}: {error_message(error)}")
            except BaseException as end:  # a row asked the process to end
                code = end.code if isinstance(end, SystemExit) else 1
                os._exit(code if isinstance(code, int) else bool(code))

    def _compute(self, number: int, steps: tuple[str, ...] | None, payload: Split | Batch) -> Batch:
        if isinstance(payload, Split):
            assert self._source is not None
            self._reply(number, "stage", "read")
            return self._source.read(payload)
        with self._loading:
            if self._stages is None:
                self._reply(number, "stage", "load")
                self._stages = self._load()
        batch = payload
        for step in self._stages.steps if steps is None else steps:
            self._reply(number, "stage", step)
            batch = self._stages.run_step(step, batch)
        return batch

    def _reply(self, number: int, reply: str, value: str | Batch) -> None:
        with self._sending:
            send(self._replies, (number, reply, value))


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    set_replaceable(True)
    load, source = receive(requests)
    server = _Server(load, source, replies)
    # Threads that stay: torch keeps a pool of workers for each.
    threads = ThreadPoolExecutor(_CALLS)
    while True:
        try:
            threads.submit(server.answer, *receive(requests))
        except EOFError:  # the parent is done, or dead
            os._exit(0)


if __name__ == "__main__":
    _serve(*take_over_pipes())
