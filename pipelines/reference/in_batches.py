"""A job's rows through `transformers.pipeline` as it is: rows in order, batches of one size."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import combine_chunks, field_values
from pipemill.actors.task import Loaded

from ..adapter.row_values import read_rows
from ..engines.registry import PADDED
from ..loading.make_task import make_adapter
from ..task_spec import TaskSpec
from .prompts import with_prompt


class PlainBatches:
    """What `transformers.pipeline(…, batch_size=n)` does with a list of these rows.

    Texts longer than the model are cut, where pipemill would make windows of them: the pipeline
    would raise.

    Raises:
        ValueError: plain transformers does not do the task, or not in one call for all rows.
    """

    def __init__(self, spec: TaskSpec, loaded: Loaded) -> None:
        declared, plain = spec.declared, spec.plain
        if declared is None:
            raise ValueError(f"{spec.name} is not compared")
        # But for those that a row brings in its inputs, like a question.
        of_call = [
            c.name for c in spec.inputs if c.parameter and c.name not in declared.own_parameters
        ]
        if own := [name for name in of_call if name in loaded.columns]:
            raise ValueError(f"one call has one {own[0]} for all rows")
        parameters = loaded.parameters if plain is None else plain.batch_parameters(loaded)
        self.adapter = make_adapter(declared, replace(loaded, parameters=parameters, engine=PADDED))
        self.pipeline = loaded.pipeline
        self.prompt = "" if plain is None else plain.prompt(loaded)

    def sizes(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of each chunk, and the chunks of each row."""
        lists = combine_chunks(self.adapter.expand(with_prompt(rows, "text", self.prompt)))
        return field_values(lists.flatten(), "size"), pc.list_value_length(lists).to_numpy()

    def answers(self, rows: pa.Table, batch_size: int) -> Iterator[Any]:
        """Yield the answers one by one; a batch is computed when its first answer is asked for."""
        return iter(
            self.pipeline.get_iterator(
                self._make_inputs(rows),
                0,
                batch_size,
                *copy.deepcopy(self.adapter.keywords.of("{}")),
            )
        )

    def _make_inputs(self, rows: pa.Table) -> Iterator[Any]:
        rows = with_prompt(rows, "text", self.prompt)
        for row in read_rows(rows, self.adapter.keywords.kinds):
            with self.adapter.open_row(row) as inputs:
                yield inputs
