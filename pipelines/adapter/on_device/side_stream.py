"""Compute beside the model, on its device."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

_TRIES = 5


class SideStream:
    """Runs small kernels of several threads on a model's device, without waiting for the model.

    A device that fails here is found by the forward pass, which blames no row for it.
    """

    def __init__(self, device: Any) -> None:
        import torch

        self.device = torch.device(device)
        is_gpu = self.device.type == "cuda"
        # Ahead of the model's kernels: between them, a few small ones would wait for long.
        self.stream = torch.cuda.Stream(self.device, priority=-1) if is_gpu else None

    def compute(self, function: Callable[[], Any]) -> Any | None:
        """Return what a function computes; None if the device has no memory left, or fails."""
        import torch

        try:
            with nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
                return function()
        except RuntimeError:
            return None

    def to_host(self, tensor: Any) -> Any:
        """Return a tensor that was made in the stream, on the CPU."""
        import torch

        if self.stream is not None:
            # `cpu` alone would keep a core busy while it waits.
            done = torch.cuda.Event(blocking=True)
            done.record(self.stream)
            done.synchronize()
        return tensor.cpu()


def is_on_gpu(pipeline: Any) -> bool:
    """Tell whether a pipeline's model is on a GPU."""
    return bool(pipeline.device.type == "cuda")


def rounds_on_gpu(pipeline: Any) -> bool:
    """Tell whether a model is on a GPU, and rounds its inputs by more than devices differ."""
    import torch

    return is_on_gpu(pipeline) and pipeline.dtype in (torch.bfloat16, torch.float16)


def is_faster(one: Callable[[], Any], other: Callable[[], Any], threads: int = 1) -> bool:
    """Tell whether one of two functions does more in the same time, called by several threads.

    One that is faster alone may be slower then: threads have a core each, but share a device.
    """

    def measure(function: Callable[[], Any]) -> float:
        started = time.perf_counter()
        for _ in pool.map(lambda _: function(), range(2 * threads)):
            pass
        return time.perf_counter() - started

    with ThreadPoolExecutor(threads) as pool:
        took = [(measure(one), measure(other)) for _ in range(_TRIES)]
    return min(first for first, _ in took) < min(second for _, second in took)
