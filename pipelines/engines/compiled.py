"""A model compiled by torch, for micro-batches of a few widths: each width costs a compilation."""

from __future__ import annotations

from typing import Any

from ..text import model_limits

# Multiples of so many tokens, up to so many of them; beyond, powers of two.
_STEP, _STEPS = 64, 8


class Compiled:
    """Call it as the model itself, with tensors of one of its widths and any number of rows."""

    def __init__(self, model: Any) -> None:
        import torch

        self.limit = model_limits.count_positions(model)
        self.model = torch.compile(model, dynamic=False)

    def width(self, longest: int) -> int:
        """To how many tokens chunks are padded of which the longest has so many."""
        steps = -(-longest // _STEP)
        wide = _STEP * (steps if steps <= _STEPS else 1 << (steps - 1).bit_length())
        return wide if self.limit is None else max(min(wide, self.limit), longest)

    def __call__(self, **inputs: Any) -> Any:
        import torch

        for value in inputs.values():
            if isinstance(value, torch.Tensor) and len(value) > 1:  # one row is a case of its own
                torch._dynamo.maybe_mark_dynamic(value, 0)
        return self.model(**inputs)
