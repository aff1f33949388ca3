"""Any `transformers.Pipeline` behind the three functions: its preprocess, _forward, postprocess.

Chunks share a forward pass only where their shapes are equal, so nothing is padded, or where the
model answers by token; and only where a first try gave the answers of one chunk at a time.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pipemill.actors.task import MEDIA, Loaded

from ..engines.encoder import Encoder
from ..engines.token_outputs import without_padding
from ..pipeline_task import PipelineTask
from ..text import model_limits
from ..text.truncation import count_truncated_tokens
from ..user_pipeline import check_parameters, row_parameters
from .chat_media import leave_media
from .chunk_encoding import quantize_images, scale_of
from .parameter_trial import check_tried, keywords_of
from .pickled_chunks import pickle_chunk
from .pipeline_forward import DeferredError, PipelineForward, copy_kwargs
from .requirements import check_libraries
from .result_schema import COLUMNS_OF_SAMPLE, COLUMNS_OF_TASK, as_columns
from .row_values import open_row, plain_value
from .stacking import batch_group, chunk_size

_CHUNK = pa.struct(
    [
        ("size", pa.int64()),
        ("group", pa.int64()),
        ("lost", pa.int32()),  # tokens of the row's text that no chunk holds
        ("settings", pa.string()),  # what the row has of its own for the pipeline's parameters
        ("inputs", pa.large_binary()),
    ]
)


_AS_GIVEN = ("any", "record")


class PipelineAdapter:
    """A declared task with its pipeline."""

    def __init__(self, declared: PipelineTask, loaded: Loaded) -> None:
        check_libraries(declared, loaded)
        self.declared, self.loaded, self.pipeline = declared, loaded, loaded.pipeline
        self.name, self.inputs = declared.name, declared.inputs
        self.given = {**declared.defaults, **declared.given(loaded.parameters)}
        self.own = declared.own_parameters() | row_parameters(declared, loaded.pipeline)
        if declared.any_parameter:
            asked = self.given.keys() - declared.ours
            check_parameters({k: self.given[k] for k in asked}, self.own, self.pipeline)
        self.kinds = {column.name: column.kind for column in declared.inputs}
        # What is null inside such a parameter means something: it is taken as it is.
        for name in (c.name for c in declared.inputs if c.parameter and c.kind not in _AS_GIVEN):
            if self.given.get(name) is not None:
                self.given[name] = plain_value(self.given[name], self.kinds[name])
        self.scale = scale_of(loaded.pipeline)
        # What generates may draw lots, and what the user brings may do anything, unless it says so.
        generates = getattr(loaded.pipeline, "_pipeline_calls_generate", False)
        usual = not (generates or declared.any_parameter)
        saying = (declared.repeats, getattr(loaded.pipeline, "repeats", None), usual)
        self.repeats = bool(next(said for said in saying if said is not None))
        self.limit = model_limits.count_positions(loaded.pipeline.model)
        self.sanitized = lru_cache(maxsize=64)(self._sanitized)
        # A wrong parameter is an error of loading, not of every row.
        declared.check_loaded(self.given, loaded.pipeline)
        check_tried(declared, loaded)
        self.sanitized("{}")
        self.forwards = PipelineForward(declared, loaded, self.sanitized)
        if loaded.compiles and self.forwards.by_token is None:
            raise ValueError(
                f"model.compile is for tasks whose model reads a text or labels it; {self.name} "
                "is none: leave it out"
            )

    @property
    def packed(self) -> bool:
        return self.forwards.packed

    @property
    def encoder(self) -> Encoder | None:
        """What has exchanged the model's attention, if anything has."""
        return None if self.forwards.by_token is None else self.forwards.by_token.encoder

    def results(self) -> pa.Schema:
        if self.loaded.schema is not None:
            return self.loaded.schema.remove_metadata()
        if self.declared.results is None:
            raise ValueError(f"the columns that {self.name} adds are not known yet")
        return self.declared.results(self.loaded)

    def expand(self, rows: pa.Table) -> pa.ListArray:
        return pa.array([self._chunks(row) for row in rows.to_pylist()], pa.list_(_CHUNK))

    def forward(self, chunks: pa.StructArray) -> pa.Array:
        inputs = [chunk.as_buffer() for chunk in chunks.field("inputs")]
        several = list(zip(inputs, chunks.field("settings").to_pylist(), strict=True))
        outputs = self.forwards(several, len(chunks.field("size").unique()) > 1)
        return pa.array(list(map(pickle_chunk, outputs)), pa.large_binary())

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        answers, schema, seen = self.answers(rows, outputs), self.results(), self.loaded.schema
        columns = COLUMNS_OF_TASK if seen is None else (seen.metadata or {}).get(b"columns")
        if columns != COLUMNS_OF_TASK:
            return as_columns(answers, schema, sampled=columns == COLUMNS_OF_SAMPLE)
        values = self._values(rows)
        records = list(map(self.declared.record, answers, values))
        try:
            return pa.Table.from_pylist(records, schema=schema)
        except pa.ArrowTypeError:  # a model may call its labels 0 and 1
            texts = _numbers_as_text(records, pa.list_(pa.struct(list(schema))))
            return pa.Table.from_pylist(texts, schema=schema)

    def answers(self, rows: pa.Table, outputs: pa.ListArray) -> list[Any]:
        """What `transformers.pipeline` returns for each row. Raises what it raises."""
        found = []
        for payloads, values in zip(outputs.to_pylist(), self._values(rows), strict=True):
            answers = [pickle.loads(payload) for payload in payloads]
            answer = answers[0]
            if self.forwards.chunked:
                _, _, after = self.sanitized(self._settings(values))
                answer = self.pipeline.postprocess(answers, **copy_kwargs(after))
            if isinstance(answer, DeferredError):
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
        with open_row(content, self.kinds, self.pipeline, self.loaded.media) as found:
            prepared = self.declared.prepare({**given, **found}, self.pipeline)
            yield prepared
            # Of a chat that was made here, as of one that the row has.
            leave_media(getattr(prepared, "messages", None) or [])

    def _chunks(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        self._check_row(row)
        own = {k: v for k, v in row.items() if k in self.own and v is not None}
        with self.opened_row(row) as prepared:
            settings = self._settings(own)
            before, during, _ = self.sanitized(settings)
            beyond = 0
            if isinstance(prepared, str):
                prepared, beyond = self.declared.shorten(prepared, self.pipeline, before)
            inputs = self.pipeline.preprocess(prepared, **copy_kwargs(before))
            chunks = list(inputs) if self.forwards.chunked else [inputs]
        if self.forwards.by_token is not None:
            chunks = [without_padding(chunk) for chunk in chunks]
        if not chunks:
            raise ValueError(f"there is nothing for {self.name} to compute in this row")
        for chunk in chunks:
            # Null for GIT without a prompt.
            ids = chunk.get("input_ids") if isinstance(chunk, Mapping) else None
            tokens = 0 if ids is None else int(ids.shape[-1])
            model_limits.check_token_count(tokens, self.limit, "cut or shorten the text")
        pads = self.forwards.pads(during)
        # What preprocess was told may be in lists, of which a pipeline reads the first for all.
        apart = settings if during or self.forwards.by_token is None else ""
        read = prepared if beyond else row.get(self.declared.cuts or "")
        lost = count_truncated_tokens(self.pipeline.tokenizer, read, chunks) + beyond
        return [
            {
                "size": chunk_size(chunk),
                "group": batch_group(chunk, apart, pads and not self.forwards.is_empty(chunk)),
                "lost": lost if chunk is chunks[0] else 0,
                "settings": settings,
                "inputs": pickle_chunk(quantize_images(chunk, self.scale)),
            }
            for chunk in chunks
        ]

    def _check_row(self, row: dict[str, Any]) -> None:
        named = [c.name for c in self.inputs if c.parameter and row.get(c.name) is not None]
        if own := {name: plain_value(row[name], self.kinds[name]) for name in named}:
            self.declared.check_row(own, self.given, self.pipeline)

    def _values(self, rows: pa.Table) -> list[dict[str, Any]]:
        """Each row's columns, but for media, over the parameters."""
        light = rows.drop_columns([n for n in rows.column_names if self.kinds[n] in MEDIA])
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
        given = {**self.given, **json.loads(settings)}
        return keywords_of(self.declared, self.pipeline, given)


def _numbers_as_text(value: Any, kind: pa.DataType) -> Any:
    """The value with text in place of numbers where `kind` has text."""
    if pa.types.is_string(kind) and isinstance(value, int | float):
        return str(value)
    if pa.types.is_list(kind) and isinstance(value, list):
        return [_numbers_as_text(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind) and isinstance(value, dict):
        names = {field.name: field.type for field in kind}
        return {k: _numbers_as_text(v, names[k]) if k in names else v for k, v in value.items()}
    return value
