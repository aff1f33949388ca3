"""Chunks for a model whose `forward` a graph takes the place of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...text import model_limits
from ..base import Columns, ModelOutputs
from ..padded import PaddedEngine
from .runtime import GraphRuntime


class GraphEngine(PaddedEngine):
    """Pads chunks to few widths: a runtime may compile kernels for each."""

    def __init__(
        self, pipeline: Any, outputs: ModelOutputs, mixes_lengths: bool, runtime: GraphRuntime
    ) -> None:
        super().__init__(pipeline, outputs, mixes_lengths)
        self._step = runtime.width_step if mixes_lengths else 1
        self._limit = model_limits.count_positions(pipeline.model)

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        model = self.pipeline.model
        forward = vars(model).pop("forward", None)
        try:
            yield
        finally:
            if forward is not None:
                model.forward = forward

    def run(self, columns: Columns, lengths: np.ndarray) -> Any:
        if not self.mixes_lengths:
            return super().run(columns, lengths)
        longest = int(lengths.max())
        width = -(-longest // self._step) * self._step
        return self.run_padded(columns, lengths, max(min(width, self._limit or width), longest))
