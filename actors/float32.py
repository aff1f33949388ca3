"""The fastest float32 matrix product of this CPU that is still float32."""

from __future__ import annotations

import time

# Of a float32 product of this shape the largest error is about 1e-6; of a bfloat16 one 1e-2.
_EXACT = 1e-5
_TOKENS, _WIDTH = 512, 384
_TRIES = 10
_WORTH = 0.85  # of the time of the default; by less the measurement itself may be wrong


def choose_matmul() -> str:
    """Sets and returns torch's float32 matmul precision for the CPU: "medium" or "highest".

    "medium" lets torch take oneDNN's product, which on many CPUs is twice as fast as the default
    and just as exact; on those with bfloat16 units it rounds to bfloat16. So it is measured,
    which takes some milliseconds. Sets a default of the whole process.
    """
    import torch

    inputs, weights = torch.randn(_TOKENS, _WIDTH), torch.randn(_WIDTH, _WIDTH) / _WIDTH**0.5
    exact = inputs.double() @ weights.double().T
    seconds = {"highest": float("inf"), "medium": float("inf")}
    for _ in range(_TRIES):  # in turn, and the least of each: the machine may be busy
        for precision in list(seconds):
            torch.set_float32_matmul_precision(precision)
            start = time.perf_counter()
            product = torch.nn.functional.linear(inputs, weights)
            seconds[precision] = min(seconds[precision], time.perf_counter() - start)
            if (product.double() - exact).abs().max() > _EXACT:
                del seconds[precision]
    faster = seconds.get("medium", float("inf")) < _WORTH * seconds["highest"]
    best = "medium" if faster else "highest"
    torch.set_float32_matmul_precision(best)
    return best
