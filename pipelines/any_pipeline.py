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
from .compact import compact, restored, scale_of
from .declared import PipelineTask
from .inferred import COLUMNS_OF_SAMPLE, COLUMNS_OF_TASK, as_columns
from .libraries import check_libraries
from .own_pipeline import check_parameters, row_parameters
from .row_values import opened, plain_value
from .seeds import seeded
from .stacking import group_of, same, size_of, stack, unstack
from .truncation import tokens_cut

_CHUNK = pa.struct(
    [
        ("size", pa.int64()),
        ("group", pa.int64()),
        ("lost", pa.int32()),  # tokens of the row's text that no chunk holds
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

        check_libraries(declared, loaded)
        self.declared, self.loaded, self.pipeline = declared, loaded, loaded.pipeline
        self.name, self.inputs = declared.name, declared.inputs
        self.given = {**declared.defaults, **declared.given(loaded.parameters)}
        self.own = declared.own_parameters() | row_parameters(declared, loaded.pipeline)
        if declared.any_parameter:
            asked = self.given.keys() - declared.ours
            check_parameters({k: self.given[k] for k in asked}, self.own, self.pipeline)
        self.kinds = {column.name: column.kind for column in declared.inputs}
        # What is null in a parameter of any kind means something: it is taken as it is.
        for name in (c.name for c in declared.inputs if c.parameter and c.kind != "any"):
            if self.given.get(name) is not None:
                self.given[name] = plain_value(self.given[name], self.kinds[name])
        self.scale = scale_of(loaded.pipeline)
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
        answers, schema, seen = self.answers(rows, outputs), self.results(), self.loaded.schema
        columns = COLUMNS_OF_TASK if seen is None else (seen.metadata or {}).get(b"columns")
        if columns != COLUMNS_OF_TASK:
            return as_columns(answers, schema, sampled=columns == COLUMNS_OF_SAMPLE)
        values = self._values(rows)
        records = list(map(self.declared.record, answers, values))
        return pa.Table.from_pylist(records, schema=schema)

    def answers(self, rows: pa.Table, outputs: pa.ListArray) -> list[Any]:
        """What `transformers.pipeline` returns for each row. Raises what it raises."""
        found = []
        for payloads, values in zip(outputs.to_pylist(), self._values(rows), strict=True):
            answers = [pickle.loads(payload) for payload in payloads]
            answer = answers[0]
            if self.chunked:
                _, _, after = self.sanitized(self._settings(values))
                answer = self.pipeline.postprocess(answers, **_copied(after))
            if isinstance(answer, _Raised):
                raise type(answer.error, (Exception,), {})(answer.message)
            found.append(answer)
        return found

    @contextmanager
    def opened_row(self, row: dict[str, Any]) -> Iterator[Any]:
        """What the pipeline's `preprocess` takes for a row; files are there within it."""
        content = {k: v for k, v in row.items() if k not in self.own}
        # As they are: what is null in a parameter means something, in a column only that
        # another row has it.
        given = {
            name: self.given[name]
            for name in self.declared.ours
            if name in self.kinds and self.given.get(name) is not None
        }
        with opened(content, self.kinds, self.pipeline, self.loaded.media) as found:
            yield self.declared.prepare({**given, **found}, self.pipeline)

    def _chunks(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        own = {k: v for k, v in row.items() if k in self.own and v is not None}
        with self.opened_row(row) as prepared:
            settings = self._settings(own)
            before, _, _ = self.sanitized(settings)
            inputs = self.pipeline.preprocess(prepared, **_copied(before))
            chunks = list(inputs) if self.chunked else [inputs]
        if not chunks:
            raise ValueError(f"there is nothing for {self.name} to compute in this row")
        for chunk in chunks:
            tokens = int(chunk["input_ids"].shape[-1]) if "input_ids" in chunk else 0
            text_encoder.check_tokens(tokens, self.limit, "cut or shorten the text")
        lost = tokens_cut(self.pipeline.tokenizer, row.get(self.declared.cuts or ""), chunks)
        return [
            {
                "size": size_of(chunk),
                "group": group_of(chunk, settings),
                "lost": lost if chunk is chunks[0] else 0,
                "settings": settings,
                "inputs": pickle.dumps(compact(chunk, self.scale), protocol=5),
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
        chunk = self._inputs(inputs)
        with seeded(chunk, self.pipeline.device):
            output = self.pipeline.forward(chunk, **_copied(during))
        return self._reduced(output, after)

    def _stacked(self, inputs: list[Any], settings: str) -> list[Any]:
        _, during, after = self.sanitized(settings)
        together = stack([self._inputs(one) for one in inputs])
        outputs = unstack(self.pipeline.forward(together, **_copied(during)), len(inputs))
        return [self._reduced(output, after) for output in outputs]

    def _inputs(self, pickled: Any) -> Any:
        return restored(pickle.loads(pickled), self.pipeline.device)

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
        own = {
            name: plain_value(value, self.kinds[name])
            for name, value in values.items()
            if name in self.own and name in self.loaded.columns
        }
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
