"""Any `transformers.Pipeline` behind the three functions: its preprocess, _forward, postprocess.

Chunks share a forward pass only where their shapes are equal, so nothing is padded, and only
where a first try gave the answers of one chunk at a time.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Loaded

from . import text_encoder
from .declared import PipelineTask
from .inferred import shaped
from .row_values import labels_of, media_kinds, opened
from .stacking import group_of, same, size_of, stack, unstack

_CHUNK = pa.struct(
    [
        ("size", pa.int64()),
        ("group", pa.int64()),
        ("settings", pa.string()),  # what the row has of its own for the pipeline's parameters
        ("inputs", pa.large_binary()),
    ]
)
_TRIED = 4  # chunks of the first forward pass that are compared


class AnyPipeline:
    """A declared task with its pipeline."""

    packed = False

    def __init__(self, declared: PipelineTask, loaded: Loaded) -> None:
        from transformers.pipelines.base import ChunkPipeline

        if kinds := media_kinds(declared.inputs):
            from . import media

            for kind in kinds:
                media.require(kind)
            loaded.media.check()
        self.declared, self.loaded, self.pipeline = declared, loaded, loaded.pipeline
        self.name, self.inputs = declared.name, declared.inputs
        self.given = {**declared.defaults, **declared.given(loaded.parameters)}
        for column in declared.inputs:
            if column.kind == "labels" and self.given.get(column.name) is not None:
                self.given[column.name] = labels_of(self.given[column.name])
        self.own = declared.own_parameters()
        self.kinds = {column.name: column.kind for column in declared.inputs}
        # What generates may draw lots, and what the user brings may do anything.
        generates = getattr(loaded.pipeline, "_pipeline_calls_generate", False)
        self.repeats = not (generates or declared.any_parameter)
        self.limit = text_encoder.positions(loaded.pipeline.model)
        self.chunked = isinstance(loaded.pipeline, ChunkPipeline)
        self.stacks: bool | None = None if declared.stacks else False
        self.sanitized = lru_cache(maxsize=64)(self._sanitized)
        self.sanitized("{}")  # a wrong parameter is an error of loading, not of every row

    def results(self) -> pa.Schema:
        if self.loaded.schema is not None:
            return self.loaded.schema.remove_metadata()
        if self.declared.results is None:
            raise ValueError(f"the columns that {self.name} adds are not known yet")
        return self.declared.results(self.loaded)

    def expand(self, rows: pa.Table) -> pa.ListArray:
        return pa.array([self._chunks(row) for row in rows.to_pylist()], pa.list_(_CHUNK))

    def forward(self, chunks: pa.StructArray) -> pa.Array:
        settings = chunks.field("settings")[0].as_py()
        inputs = [chunk.as_buffer() for chunk in chunks.field("inputs")]
        return pa.array(
            [pickle.dumps(o, 5) for o in self._outputs(inputs, settings)], pa.large_binary()
        )

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        schema = self.results()
        seen = self.loaded.schema
        # A sample may have shown that the answers fit the task's own columns.
        own = seen is None or seen.metadata
        shape = self.declared.record if own else self._as_schema
        records = [
            shape(answer, values)
            for answer, values in zip(self.answers(rows, outputs), self._values(rows), strict=True)
        ]
        return pa.Table.from_pylist(records, schema=schema)

    def answers(self, rows: pa.Table, outputs: pa.ListArray) -> list[Any]:
        """What `transformers.pipeline` returns for each row. Raises what it raises."""
        found = []
        for payloads, values in zip(outputs.to_pylist(), self._values(rows), strict=True):
            answers = [pickle.loads(payload) for payload in payloads]
            answer = answers[0]
            if self.chunked:
                _, _, after = self.sanitized(self._settings(values))
                answer = self.pipeline.postprocess(answers, **after)
            if isinstance(answer, _Raised):
                raise type(answer.error, (Exception,), {})(answer.message)
            found.append(answer)
        return found

    @contextmanager
    def opened_row(self, row: dict[str, Any]) -> Iterator[Any]:
        """What the pipeline's `preprocess` takes for a row; files are there within it."""
        content = {k: v for k, v in row.items() if k not in self.own}
        for name in set(self.declared.ours) & set(self.kinds):
            if content.get(name) is None and self.given.get(name) is not None:
                content[name] = self.given[name]
        with opened(content, self.kinds, self.pipeline, self.loaded.media) as values:
            yield self.declared.prepare(values, self.pipeline)

    def _as_schema(self, answer: Any, values: dict[str, Any]) -> dict[str, Any]:
        return shaped(answer, self.results())

    def _chunks(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        own = {k: v for k, v in row.items() if k in self.own and v is not None}
        with self.opened_row(row) as prepared:
            settings = self._settings(own)
            before, _, _ = self.sanitized(settings)
            inputs = self.pipeline.preprocess(prepared, **_copied(before))
            chunks = list(inputs) if self.chunked else [inputs]
        for chunk in chunks:
            tokens = int(chunk["input_ids"].shape[-1]) if "input_ids" in chunk else 0
            text_encoder.check_tokens(tokens, self.limit, "cut or shorten the text")
        return [
            {
                "size": size_of(chunk),
                "group": group_of(chunk, settings),
                "settings": settings,
                "inputs": pickle.dumps(chunk, protocol=5),
            }
            for chunk in chunks
        ]

    def _outputs(self, inputs: list[Any], settings: str) -> list[Any]:
        if len(inputs) == 1 or self.stacks is False:
            return [self._single(one, settings) for one in inputs]
        if self.stacks:
            return self._stacked(inputs, settings)
        singles = [self._single(one, settings) for one in inputs[:_TRIED]]
        try:
            tried = self._stacked(inputs[:_TRIED], settings)
            self.stacks = all(map(same, tried, singles))
        except Exception:
            self.stacks = False
        return [*singles, *(self._outputs(inputs[_TRIED:], settings) if inputs[_TRIED:] else [])]

    def _single(self, inputs: Any, settings: str) -> Any:
        _, during, after = self.sanitized(settings)
        output = self.pipeline.forward(pickle.loads(inputs), **_copied(during))
        return self._reduced(output, after)

    def _stacked(self, inputs: list[Any], settings: str) -> list[Any]:
        _, during, after = self.sanitized(settings)
        together = stack([pickle.loads(one) for one in inputs])
        outputs = unstack(self.pipeline.forward(together, **_copied(during)), len(inputs))
        return [self._reduced(output, after) for output in outputs]

    def _reduced(self, output: Any, after: dict[str, Any]) -> Any:
        """What regroup needs of a forward pass.

        Where a row is one chunk its answer is made here: the logits of a vocabulary are a
        thousand times larger, and a split's worth of them would fill the memory.
        """
        if self.chunked:
            return output
        try:
            return self.pipeline.postprocess(output, **_copied(after))
        except Exception as error:  # belongs to regroup, which raises it
            return _Raised(type(error).__name__, str(error))

    def _values(self, rows: pa.Table) -> list[dict[str, Any]]:
        """Each row's columns, but for media, over the parameters."""
        light = rows.drop_columns(
            [n for n in rows.column_names if self.kinds[n] in ("image", "audio", "video")]
        )
        given = light.to_pylist() if light.num_columns else [{}] * rows.num_rows
        return [{**self.given, **{k: v for k, v in g.items() if v is not None}} for g in given]

    def _settings(self, values: dict[str, Any]) -> str:
        """A row's own parameters, as a text that is equal where they are."""
        own = {k: v for k, v in values.items() if k in self.own and k in self.loaded.columns}
        for name, value in own.items():
            if self.kinds[name] == "labels":
                own[name] = labels_of(value)
        return json.dumps(own, sort_keys=True)

    def _sanitized(self, settings: str) -> tuple[dict[str, Any], ...]:
        """Keywords of preprocess, _forward and postprocess."""
        # Copies: some pipelines write into the dictionaries they are given.
        given = copy.deepcopy({k: v for k, v in self.given.items() if k not in self.declared.ours})
        pipeline = self.pipeline
        wanted = pipeline._sanitize_parameters(**{**given, **json.loads(settings)})
        loaded = (
            pipeline._preprocess_params,
            pipeline._forward_params,
            pipeline._postprocess_params,
        )
        return tuple({**a, **b} for a, b in zip(loaded, wanted, strict=True))


@dataclass(frozen=True)
class _Raised:
    """An exception by name: not every exception survives pickling."""

    error: str
    message: str


def _copied(keywords: dict[str, Any]) -> dict[str, Any]:
    return {k: dict(v) if isinstance(v, dict) else v for k, v in keywords.items()}
