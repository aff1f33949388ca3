"""One row at a time through a plain `transformers.pipeline`: what a sample is held against."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.batch import Batch

from ..loading.task_loader import LoadTask
from ..pipeline_task import PipelineTask
from ..tasks.feature_extraction import prepare_tokenizer
from ..tasks.plain import to_plain_parameters
from ..tasks.text_classification import to_plain_function
from ..text.pooling import pool_and_concatenate


class PlainRows:
    """A loaded task twice: as pipemill computes it, and as transformers does.

    tolerance: how far two right answers may be apart, in the weights' precision.
    """

    def __init__(self, load: LoadTask) -> None:
        import torch

        if load.model.num_gpus and not torch.cuda.is_available():
            load = replace(load, model=replace(load.model, num_gpus=0))
        load = replace(load, compiles=False)
        self.name, self.columns = load.task, {name for name, _ in load.columns}
        self.given: dict[str, Any] = json.loads(load.parameters)
        # A declared task goes through its pipeline anyway.
        self.declared = load.own or isinstance(load.kind(), PipelineTask)
        self.own = None if self.declared else load()
        plain = load
        if not self.declared:
            plain = replace(load, own=True, parameters=json.dumps(self._parameters()))
        self.plain = plain()
        task: Any = self.plain.task
        task.forwards.alone = {False: True, True: True}  # every chunk runs alone
        self.embeds = self.name == "feature-extraction" and self.own is not None
        if self.embeds:
            prepare_tokenizer(task.pipeline, self._own_task.recipe)
        exact = task.pipeline.model.dtype in (torch.float32, torch.float64)
        self.tolerance = 1e-3 if exact else 5e-2

    def answer(self, row: Batch) -> tuple[dict[str, Any], bool]:
        """The result columns of a batch of one row, and whether plain transformers computed them.

        A row that was cut into windows has no answer in transformers: then pipemill computes it
        alone. If the row fails, the one "column" is the error.
        """
        if self.own is not None and not self._one_pass(row):
            return _columns(self.own.process(row)), False
        found = _columns(self.plain.process(self._prompted(row) if self.embeds else row))
        if self.embeds and "embedding" in found:
            found["embedding"] = self._pooled(found["embedding"])
        return found, True

    def _one_pass(self, row: Batch) -> bool:
        """Whether transformers would compute that row as pipemill does."""
        assert self.own is not None
        if self.name == "zero-shot-classification":
            return True
        if self.name == "text-classification" and self._function() is None:
            return False
        if "top_k" in self.columns:
            return False
        inputs = {name: row.rows[column] for name, column in self.own.columns.items()}
        return len(self.own.task.expand(pa.table(inputs))[0]) == 1

    def _parameters(self) -> dict[str, Any]:
        """Those of the job, as transformers takes them."""
        assert self.own is not None
        task: Any = self.own.task
        given = self.given
        if self.name == "text-classification" and task.function:
            given = {**given, "function_to_apply": self._function()}
        cut: dict[str, Any] = {}
        if self.name == "feature-extraction":
            cut = dict(task.recipe.tokenizing)
        if self.name != "zero-shot-classification" and task.window_tokenizer.truncates:
            cut |= {
                "truncation": task.window_tokenizer.truncation,
                "max_length": task.window_tokenizer.limit,
            }
        return to_plain_parameters(self.name, given, cut)

    @property
    def _own_task(self) -> Any:
        assert self.own is not None
        return self.own.task

    def _function(self) -> str | None:
        """What transformers calls the function to apply; None for one that it does not have."""
        return to_plain_function(self._own_task.function)

    def _prompted(self, row: Batch) -> Batch:
        """The row with the prompt before its text."""
        assert self.own is not None
        column, rows = self.own.columns["text"], row.rows
        text = [self._own_task.recipe.prompt + text for text in rows[column].to_pylist()]
        place = rows.column_names.index(column)
        return Batch(rows.set_column(place, column, pa.array(text, pa.string())))

    def _pooled(self, tokens: list[list[float]]) -> Any:
        """Token vectors as the one vector of feature-extraction."""
        task = self._own_task
        if task.per_token:
            return tokens
        vectors = np.array(tokens, dtype=np.float32)
        vector = pool_and_concatenate(vectors, task.recipe.poolings, task.unpooled)
        return task.head(vector[None].astype(np.float32))[0].tolist()


def _columns(batch: Batch) -> dict[str, Any]:
    for failure in batch.failures.values():
        return {failure.error: failure.message}
    assert batch.results is not None
    return batch.results.to_pylist()[0]
