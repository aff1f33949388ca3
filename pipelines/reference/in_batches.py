"""A job's rows through `transformers.pipeline` as it is: rows in order, batches of one size."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import combine_chunks, field_values
from pipemill.actors.task import Loaded

from ..pipeline_task import PipelineTask
from ..tasks.plain import PLAIN_TASKS, to_plain_parameters
from ..text import model_limits
from ..text.sentence_transformers_config import build_recipe


class PlainBatches:
    """What `transformers.pipeline(…, batch_size=n)` does with a list of these rows.

    Texts longer than the model are cut, where pipemill would make windows of them: the pipeline
    would raise. Raises ValueError where such a call is not possible.
    """

    def __init__(self, kind: Any, loaded: Loaded) -> None:
        declared = kind if isinstance(kind, PipelineTask) else PLAIN_TASKS.get(kind.name)
        if declared is None:
            raise ValueError(f"{kind.name} is not compared")
        # But for those that a row brings in its inputs, like a question.
        of_call = [c.name for c in kind.inputs if c.parameter and c.name not in declared.ours]
        if own := [name for name in of_call if name in loaded.columns]:
            raise ValueError(f"one call has one {own[0]} for all rows")
        parameters = _parameters(kind.name, loaded) if declared is not kind else loaded.parameters
        self.any = declared(replace(loaded, parameters=parameters))
        self.pipeline = loaded.pipeline
        self.prompt = ""
        if kind.name == "feature-extraction":
            self.prompt = build_recipe(loaded.settings(kind.parameters), loaded.files).prompt

    def sizes(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of each chunk, and chunks of each row."""
        lists = combine_chunks(self.any.expand(self._prompted(rows)))
        return field_values(lists.flatten(), "size"), pc.list_value_length(lists).to_numpy()

    def answers(self, rows: pa.Table, batch_size: int) -> Iterator[Any]:
        """One by one, each batch computed when its first answer is asked for."""
        return iter(
            self.pipeline.get_iterator(
                self._inputs(rows), 0, batch_size, *copy.deepcopy(self.any.sanitized("{}"))
            )
        )

    def _prompted(self, rows: pa.Table) -> pa.Table:
        if not self.prompt:
            return rows
        text = [self.prompt + text for text in rows["text"].to_pylist()]
        place = rows.column_names.index("text")
        return rows.set_column(place, "text", pa.array(text, pa.string()))

    def _inputs(self, rows: pa.Table) -> Iterator[Any]:
        for row in self._prompted(rows).to_pylist():
            with self.any.opened_row(row) as inputs:
                yield inputs


def _parameters(task: str, loaded: Loaded) -> dict[str, Any]:
    """Those of a task that pipemill computes its own way."""
    given: Mapping[str, Any] = loaded.parameters
    if task == "zero-shot-classification":  # cuts of itself
        return to_plain_parameters(task, given, {})
    asked = {**given, **(given.get("tokenize_kwargs") or {})}
    length = asked.get("max_length") or model_limits.find_max_length(loaded.pipeline)
    cut = {"truncation": asked.get("truncation") or True}
    cut |= {"max_length": length} if length else {}
    parameters = to_plain_parameters(task, given, cut)
    # Turning the vectors of all tokens into lists would be most of the time.
    return {**parameters, "return_tensors": True} if task == "feature-extraction" else parameters
