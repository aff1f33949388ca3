"""A task whose model and rows need a share of a GPU, which this process is said to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipemill.actors import model_slot
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.pipelines.loading.model import Model

from tests.support.changeable import Changeable
from tests.support.lengths import Lengths

MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB of "
    "which 1.07 GiB is free. Process 1 has 3.60 GiB memory in use."
)
# The same, where the driver does not tell torch which processes hold it, as in a part of a GPU.
NVML = (
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":1015,'
    " please report a bug to PyTorch. "
)


class OutOfMemoryError(RuntimeError):
    """As torch's, which takes seconds to import in each of the actors."""


def run_out() -> None:
    raise OutOfMemoryError(MESSAGE)


class Crowded(Lengths):
    """A text "needs 0.5" does not fit with less of the GPU."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, chunks):
        for text in chunks.field("whole").to_pylist():
            if text.startswith("needs ") and float(text[6:]) > self.share:
                run_out()
        return super().forward(chunks)


@dataclass(frozen=True)
class LoadCrowded(Changeable):
    """model: of which only `num_gpus` counts. needs: the share that it needs to load."""

    model: Model
    needs: float
    weights: bool = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        model_slot._WAITS_S = (0.1,)

    def __call__(self) -> Stages:
        if self.weights and self.needs > self.model.num_gpus:
            run_out()
        return Stages(Crowded(self.model.num_gpus), {"text": "text"}, TokenBudget(100))
