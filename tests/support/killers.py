"""A task without a model whose rows kill their process on demand."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.faults import watchdog
from pipemill.actors.sources.base import Source
from pipemill.actors.split import Split

from tests.support.changeable import Changeable
from tests.support.lengths import Lengths

# What torch raises from 2.9 on; before, it is a RuntimeError of this text.
ASSERT = """CUDA error: device-side assert triggered
Search for `cudaErrorAssert' in https://docs.nvidia.com/cuda/cuda-runtime-api for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below
might be incorrect.
"""


class AcceleratorError(RuntimeError):
    """As torch's, which takes seconds to import in each process that dies of it."""


# Whether the device is lost to this process.
_lost = False


def lose_device() -> None:
    global _lost
    _lost = True
    use_device()


def use_device() -> None:
    if _lost:
        raise AcceleratorError(ASSERT)


WAYS = {
    "assert": lose_device,
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "leave": lambda: os._exit(0),
    "sysexit": lambda: sys.exit(5),
    "hang": lambda: time.sleep(600),
    # As a library that waits without releasing the interpreter's lock.
    "clench": lambda: ctypes.PyDLL(None).sleep(600),
}


class Killers(Lengths):
    """A text such as "segfault in forward" does that to its process; every death is noted.

    deaths: a folder, where each process that is about to die leaves a file.
    """

    def __init__(self, deaths: str) -> None:
        super().__init__()
        self.deaths = Path(deaths)

    def _fail(self, texts, stage):
        use_device()
        for text in texts:
            way, _, where = text.partition(" in ")
            if where == stage and way in WAYS:
                die(self.deaths, way, stage)
        super()._fail(texts, stage)


def die(deaths: Path, way: str, stage: str) -> None:
    (deaths / f"{os.getpid()}.{stage}").write_text(way)
    WAYS[way]()
    time.sleep(60)  # a signal may reach another thread first


@dataclass(frozen=True)
class LoadKillers(Changeable):
    """Loads the task.

    deaths: a folder. dies: whether a process that loads it dies. limit_s: the watchdog's, in the
    process that loads it.
    """

    deaths: str
    dies: bool = False
    weights: bool = True
    limit_s: float | None = None

    def __call__(self) -> Stages:
        if self.limit_s is not None:
            watchdog.LEAST_S = watchdog.FIRST_S = self.limit_s
            watchdog._GRACE_S = 1
        if self.dies and self.weights:
            die(Path(self.deaths), "kill", "load")
        return Stages(Killers(self.deaths), {"text": "text"}, TokenBudget(100))


@dataclass(frozen=True)
class KillingSource:
    """A source that ends the process that reads the split of a number."""

    source: Source
    number: int

    def read(self, split: Split) -> Batch:
        if split.number == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.source.read(split)
