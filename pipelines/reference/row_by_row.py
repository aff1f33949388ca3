"""One row at a time through a plain `transformers.pipeline`: what a sample is compared with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.batch import Batch

from ..engines.registry import PADDED, find_engine
from ..loading.task_loader import LoadTask
from ..plain_form import Comparison
from .prompts import with_prompt


class PlainRows:
    """A loaded task twice: as pipemill computes it, and as transformers does.

    Attributes:
        tolerance: how far two right answers may be apart, in the weights' precision.
    """

    def __init__(self, load: LoadTask) -> None:
        import torch

        if load.model.num_gpus and not torch.cuda.is_available():
            load = replace(load, model=replace(load.model, num_gpus=0))
        load, dtype = replace(load, compiles=False), load.model.dtype
        factory = find_engine(load.engine)
        has_graph = factory is not None and factory.graph is not None
        spec = load.spec()
        # A declared task is compared through its own pipeline: pipemill computes with that, too.
        self.own = None if spec.plain is None and spec.declared else load()
        self.comparison: Comparison | None = None
        if self.own is not None and spec.plain is not None:
            task: Any = self.own.task
            self.comparison = task.comparison(json.loads(load.parameters))
            load = replace(load, own=True, parameters=json.dumps(self.comparison.parameters))
        if has_graph:  # plain transformers computes in float32
            load = replace(load, model=replace(load.model, dtype="float32"))
        self.plain = replace(load, engine=PADDED)() if spec.declared else None
        if self.plain is not None:
            plain: Any = self.plain.task
            plain.forwards.alone = {False: True, True: True}  # every chunk runs alone
            if self.comparison is not None:
                self.comparison.prepare(plain.pipeline)
        computing: Any = self.plain or self.own
        pipeline = getattr(computing.task, "pipeline", None)
        exact = pipeline is None or pipeline.model.dtype in (torch.float32, torch.float64)
        self.tolerance = 1e-3 if exact else 5e-2
        if dtype == "int8" or (has_graph and dtype == "bfloat16"):
            self.tolerance = np.inf  # what differs is counted, and judged in all

    def answer(self, row: Batch) -> tuple[dict[str, Any], bool]:
        """Return the result columns of a batch of one row, and whether transformers made them.

        If transformers has no answer to compare, as for a row that was cut into windows, pipemill
        computes the row alone. If the row fails, the one "column" is the error.
        """
        if self.own is None:
            assert self.plain is not None
            return _list_columns(self.plain.process(row)), True
        inputs = {name: row.rows[column] for name, column in self.own.columns.items()}
        comparison = self.comparison
        if self.plain is None or comparison is None or not comparison.can_answer(pa.table(inputs)):
            return _list_columns(self.own.process(row)), False
        if comparison.prompt:
            row = Batch(with_prompt(row.rows, self.own.columns["text"], comparison.prompt))
        return comparison.record(_list_columns(self.plain.process(row))), True


def _list_columns(batch: Batch) -> dict[str, Any]:
    for failure in batch.failures.values():
        return {failure.error: failure.message}
    assert batch.results is not None
    return batch.results.to_pylist()[0]
