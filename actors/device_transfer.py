"""What a device has computed, brought to the host without stopping the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

# Outputs of a micro-batch; from a GPU a function that waits for them and gives them.
Outputs: TypeAlias = pa.Array | Callable[[], pa.Array]


def to_host_async(tensor: Any, shaped: Callable[[np.ndarray], pa.Array]) -> Outputs:
    """`shaped` of the tensor as a float32 array.

    A GPU (untried: none was at hand) copies into pinned memory in its own time, and goes on with
    the next micro-batch: what is returned is then a function that waits for the copy.
    """
    import torch

    tensor = tensor.float()
    if tensor.device.type != "cuda":
        return shaped(tensor.cpu().numpy())
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def arrived() -> pa.Array:
        copied.synchronize()
        return shaped(copy.numpy())

    return arrived


def to_device(array: np.ndarray, device: Any) -> Any:
    """A tensor of it; to a GPU from pinned memory: only from there does the host not wait."""
    import torch

    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
