"""The processes in which an engine computes, which must not outlive this one, nor end unseen."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

# Seconds between looks for processes that were started.
_LOOK_S = 0.1
# Seconds that a process that was killed takes at most to give its memory back.
_END_S = 10
# Kills the processes whose numbers it reads, and all that these have started: when it reads "end",
# or when the process that started it has ended, however that did. The end of its input alone would
# not tell: a forked process keeps it open. It looks twice a second, since waiting for the end of a
# process that is no child needs Linux 5.3, and a Python that was built for it.
_KILL_AT_END = """
import os, select, sys
from contextlib import suppress
from psutil import NoSuchProcess, Process
owner, processes, is_over = int(sys.argv[1]), [], False
while not is_over:
    is_over = os.getppid() != owner  # what it has told is read first
    if select.select([0], [], [], 0 if is_over else 0.5)[0]:
        words = os.read(0, 2**16).split()
        is_over = is_over or not words or b"end" in words
        for number in filter(bytes.isdigit, words):
            with suppress(NoSuchProcess):
                processes.append(Process(int(number)))
for process in list(processes):
    with suppress(NoSuchProcess):
        processes += process.children(recursive=True)
for process in processes:
    with suppress(NoSuchProcess):
        process.kill()
"""


class EngineProcesses:
    """The processes that `multiprocessing` starts inside the block, in which an engine is made.

    They end with the engine (`end_with`), when this process does, however it does, and when the
    block ends with an error. Otherwise they would go on, and keep the memory of the GPU.

    Attributes:
        started: the processes, after the block.
    """

    def __init__(self) -> None:
        self.started: list[BaseProcess] = []

    def __enter__(self) -> EngineProcesses:
        self._others = multiprocessing.active_children()
        self._watch = subprocess.Popen(
            [sys.executable, "-c", _KILL_AT_END, str(os.getpid())],
            bufsize=0, stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._is_made = threading.Event()
        self._looking = threading.Thread(target=self._look_often, daemon=True)
        self._looking.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._is_made.set()
        self._looking.join()
        self._look()
        if error is not None or not self.started:
            _end(self.started, self._watch)

    def end_with(self, owner: object, stop: Callable[[], object]) -> None:
        """End the processes when their owner is freed, too. stop: what is called before."""
        if self.started:
            weakref.finalize(owner, _end, self.started, self._watch, stop)

    def _look_often(self) -> None:
        while not self._is_made.wait(_LOOK_S):
            self._look()

    def _look(self) -> None:
        for process in multiprocessing.active_children():
            if process not in self._others and process not in self.started:
                self.started.append(process)
                _tell(self._watch, f"{process.pid}\n")


def _tell(watch: subprocess.Popen[bytes], line: str) -> None:
    assert watch.stdin is not None
    with suppress(OSError):
        watch.stdin.write(line.encode())


def _end(
    processes: list[BaseProcess],
    watch: subprocess.Popen[bytes],
    stop: Callable[[], object] = lambda: None,
) -> None:
    """End processes, and wait until they have: another engine may need their memory."""
    with suppress(Exception):
        stop()
    _tell(watch, "end\n")  # what has not ended is killed
    watch.communicate()
    for process in processes:
        process.join(_END_S)


def tell_end(processes: list[BaseProcess], tell: Callable[[BaseException], object]) -> None:
    """Call `tell` with an error when one of the processes ends: who asks it may wait forever."""

    def watch() -> None:
        wait([process.sentinel for process in processes])
        tell(ChildProcessError("its process ended"))

    if processes:
        threading.Thread(target=watch, daemon=True).start()
