"""Any `transformers.Pipeline` as a task: its preprocess, _forward and postprocess.

A micro-batch holds chunks of equal shape only, so nothing is padded and any pipeline's answers
are those of one row at a time, whatever it does with padding.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column

from . import text_encoder

# A chunk's size where it holds no token ids: its numbers, in image patches of 16 x 16 x 3.
_VALUES_PER_TOKEN = 768


@dataclass(frozen=True, kw_only=True)
class PipelineTask:
    """A task declared as data; call it with a loaded pipeline to have it run.

    results: from the pipeline and its parameters to the columns it adds.
    record: from one row's answer, as `transformers.pipeline` returns it, to those columns.
    ours: parameters that the two above read, and that transformers does not know.
    """

    name: str
    inputs: tuple[Column, ...]
    parameters: Mapping[str, Any]
    results: Callable[[Any, Mapping[str, Any]], pa.Schema]
    record: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
    ours: tuple[str, ...] = ()

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        """The pipeline itself checks its parameters, when it is loaded."""

    def __call__(self, pipeline: Any, parameters: Mapping[str, Any]) -> AnyPipeline:
        return AnyPipeline(self, pipeline, parameters)


class AnyPipeline:
    """A loaded pipeline behind the three functions of a task."""

    def __init__(
        self, declared: PipelineTask, pipeline: Any, parameters: Mapping[str, Any]
    ) -> None:
        from transformers.pipelines.base import ChunkPipeline

        self.declared, self.pipeline, self.parameters = declared, pipeline, parameters
        self.name, self.inputs = declared.name, declared.inputs
        self.limit = text_encoder.positions(pipeline.model)
        self.chunked = isinstance(pipeline, ChunkPipeline)
        # A copy: some pipelines write into the dictionaries they are given.
        theirs = {k: v for k, v in parameters.items() if k not in declared.ours}
        own = pipeline._sanitize_parameters(**copy.deepcopy(theirs))
        at_load = (
            pipeline._preprocess_params,
            pipeline._forward_params,
            pipeline._postprocess_params,
        )
        self.before, self.during, self.after = (
            {**a, **b} for a, b in zip(at_load, own, strict=True)
        )

    def results(self) -> pa.Schema:
        return self.declared.results(self.pipeline, self.parameters)

    def expand(self, rows: pa.Table) -> pa.ListArray:
        lists = [self._chunks(row) for row in rows.to_pylist()]
        fields = [("size", pa.int64()), ("group", pa.int64()), ("inputs", pa.large_binary())]
        kind = pa.list_(pa.struct(fields))
        return pa.array(lists, type=kind)

    def forward(self, chunks: pa.StructArray) -> pa.Array:
        inputs = [pickle.loads(chunk.as_buffer()) for chunk in chunks.field("inputs")]
        if len(inputs) == 1:
            outputs = [self.pipeline.forward(inputs[0], **self.during)]
        else:
            outputs = _unstack(self.pipeline.forward(_stack(inputs), **self.during), len(inputs))
        return pa.array([self._reduced(output) for output in outputs], pa.large_binary())

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        records = []
        for payloads in outputs.to_pylist():
            answers = [pickle.loads(payload) for payload in payloads]
            answer = (
                self.pipeline.postprocess(answers, **self.after) if self.chunked else answers[0]
            )
            if isinstance(answer, _Raised):
                raise type(answer.error, (Exception,), {})(answer.message)
            records.append(self.declared.record(answer, self.parameters))
        return pa.Table.from_pylist(records, schema=self.results())

    def _chunks(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        value = row[self.inputs[0].name] if len(row) == 1 else row
        inputs = self.pipeline.preprocess(value, **self.before)
        chunks = list(inputs) if self.chunked else [inputs]
        for chunk in chunks:
            text_encoder.check_tokens(_tokens(chunk), self.limit, "cut or shorten the text")
        return [
            {"size": _size(c), "group": _size(c), "inputs": pickle.dumps(c, protocol=5)}
            for c in chunks
        ]

    def _reduced(self, output: Any) -> bytes:
        """What regroup needs of a forward pass.

        Where a row is one chunk its answer is made here: the logits of a vocabulary are a
        thousand times larger, and a split's worth of them would fill the memory.
        """
        if not self.chunked:
            try:
                output = self.pipeline.postprocess(output, **self.after)
            except Exception as error:  # belongs to regroup, which raises it
                output = _Raised(type(error).__name__, str(error))
        return pickle.dumps(output, protocol=5)


@dataclass(frozen=True)
class _Raised:
    """An exception by name: not every exception survives pickling."""

    error: str
    message: str


def _tokens(inputs: Mapping[str, Any]) -> int:
    return int(inputs["input_ids"].numel()) if "input_ids" in inputs else 0


def _size(inputs: Mapping[str, Any]) -> int:
    if "input_ids" in inputs:
        return _tokens(inputs)
    numbers = [value.numel() for value in inputs.values() if hasattr(value, "numel")]
    return max(max(numbers, default=1) // _VALUES_PER_TOKEN, 1)


def _stack(inputs: list[Any]) -> dict[str, Any]:
    """Inputs of equal shape as one: tensors joined on their first axis, the rest as lists."""
    import torch

    return {
        name: torch.cat([one[name] for one in inputs])
        if isinstance(value, torch.Tensor)
        else [one[name] for one in inputs]
        for name, value in inputs[0].items()
    }


def _unstack(outputs: Any, count: int) -> list[dict[str, Any]]:
    """The reverse, for what `_forward` returned; the model's caches are left behind."""
    import torch

    singles: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, value in outputs.items():
        if isinstance(value, torch.Tensor | list) and len(value) == count:
            for i, single in enumerate(singles):
                # A slice that is kept whole keeps its siblings alive: copy it.
                single[name] = (
                    value[i : i + 1].clone() if isinstance(value, torch.Tensor) else value[i]
                )
        elif value is None:
            for single in singles:
                single[name] = None
    return singles
