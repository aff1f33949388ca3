"""Move arrays between host and device without stopping the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

# The outputs of a micro-batch; from a GPU a function that waits for them and returns them.
Outputs: TypeAlias = pa.Array | Callable[[], pa.Array]


def to_host_async(tensor: Any, convert: Callable[[np.ndarray], pa.Array]) -> Outputs:
    """Return `convert(array)` for a tensor as a float32 array.

    A GPU copies into pinned memory while it computes the next micro-batch. The result is then a
    function that waits for the copy.
    """
    import torch

    tensor = tensor.float()
    if tensor.device.type != "cuda":
        return convert(tensor.cpu().numpy())
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def arrived() -> pa.Array:
        copied.synchronize()
        return convert(copy.numpy())

    return arrived


def to_device(array: np.ndarray | list[Any], device: Any) -> Any:
    """Return the array, or lists of integers, as a tensor.

    A GPU gets it from pinned memory: `torch.tensor(…, device=…)` would wait for the GPU.
    """
    import torch

    # NumPy takes a list of nothing for one of floats.
    given = np.array(array, np.int64) if isinstance(array, list) else array
    tensor = torch.from_numpy(given)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
