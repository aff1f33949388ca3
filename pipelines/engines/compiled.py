"""A model compiled by torch, for micro-batches of a few widths: each width costs a compilation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..text import model_limits
from .base import Columns, ModelOutputs
from .padded import PaddedEngine

# Widths are multiples of _STEP tokens, up to _STEPS of them; beyond, powers of two.
_STEP, _STEPS = 64, 8


class CompiledEngine(PaddedEngine):
    """Runs a compiled model on chunks that are padded to one of its widths."""

    def __init__(self, pipeline: Any, outputs: ModelOutputs) -> None:
        super().__init__(pipeline, outputs)
        self.model = CompiledModel(pipeline.model)

    def run(self, columns: Columns, lengths: np.ndarray) -> Any:
        width = self.model.width(int(lengths.max()))
        return self.run_padded(columns, lengths, width, self.model)


class CompiledModel:
    """Call it as the model itself, with tensors of one of its widths and any number of rows."""

    def __init__(self, model: Any) -> None:
        import torch

        self.limit = model_limits.count_positions(model)
        self.model = torch.compile(model, dynamic=False)

    def width(self, longest: int) -> int:
        """Return to how many tokens chunks are padded. longest: the tokens of the longest one."""
        steps = -(-longest // _STEP)
        wide = _STEP * (steps if steps <= _STEPS else 1 << (steps - 1).bit_length())
        return wide if self.limit is None else max(min(wide, self.limit), longest)

    def __call__(self, **inputs: Any) -> Any:
        import torch

        for value in inputs.values():
            if isinstance(value, torch.Tensor) and len(value) > 1:  # one row is a shape for itself
                torch._dynamo.maybe_mark_dynamic(value, 0)
        return self.model(**inputs)
