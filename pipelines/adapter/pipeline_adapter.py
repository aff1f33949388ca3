"""Run any `transformers.Pipeline` behind the three functions of a task.

expand, forward and regroup are its preprocess, _forward and postprocess.

Chunks share a forward pass only where their shapes are equal, so nothing is padded, or where the
model answers by token; and only where a first try gave the answers of one chunk at a time.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pipemill.actors.faults.bisect import forget_call
from pipemill.actors.faults.blame import find_blame
from pipemill.actors.faults.watchdog import mark_progress
from pipemill.actors.storage.partitions import FOLDER
from pipemill.actors.task import MEDIA, Loaded

from ..engines.stacking import batch_group, chunk_size, copy_kwargs
from ..pipeline_task import PipelineTask
from ..text import model_limits
from ..text.truncation import count_truncated_tokens
from .chat_media import leave_media
from .explain_failure import explain_failure
from .images.chunk_encoding import quantize_images, scale_of
from .images.level_processor import ImageLevels, count_threads, find_levels
from .on_device.picture_resize import choose_resize
from .on_device.spectra import choose_extractor
from .pickled_chunks import DeferredError, pickle_chunk
from .pipeline_forward import PipelineForward
from .result_schema import COLUMNS_OF_SAMPLE, COLUMNS_OF_TASK, as_columns, tabulate_records
from .row_seed import seed_cuts
from .row_values import open_row, read_rows
from .token_outputs import calls_model_once, strip_padding

if TYPE_CHECKING:
    from ..engines.encoder import Encoder
    from .parameters.pipeline_keywords import PipelineKeywords

_CHUNK = pa.struct(
    [
        ("size", pa.int64()),
        ("group", pa.int64()),
        ("lost", pa.int32()),  # tokens of the row's text that no chunk holds
        ("settings", pa.string()),  # the row's values of the pipeline's parameters
        ("inputs", pa.large_binary()),
    ]
)


class PipelineAdapter:
    """A declared task with its pipeline.

    Attributes:
        keywords: the parameters, as the pipeline's functions take them.
        forwards: runs micro-batches.
        repeats: whether equal chunks always have equal outputs.
    """

    def __init__(self, keywords: PipelineKeywords, forwards: PipelineForward) -> None:
        self.keywords, self.forwards = keywords, forwards
        self.declared: PipelineTask = keywords.declared
        self.loaded: Loaded = keywords.loaded
        self.pipeline = keywords.pipeline
        self.name, self.inputs = self.declared.name, self.declared.inputs
        self.scale = scale_of(self.pipeline)
        self.levels = self._find_levels()
        self.preparing = self._choose_preparing()
        # What generates may draw lots, and what the user brings may do anything, unless it says so.
        generates = getattr(self.pipeline, "_pipeline_calls_generate", False)
        usual = not (generates or self.declared.any_parameter)
        saying = (self.declared.repeats, getattr(self.pipeline, "repeats", None), usual)
        self.repeats = bool(next(said for said in saying if said is not None))
        self.limit = model_limits.count_positions(self.pipeline.model)
        # Ids that stand for media may have no row: the model does not look them up.
        kinds = {self.keywords.kinds.get(name) for name in self.loaded.columns}
        texts = self.declared.written is not None and not kinds.intersection(MEDIA)
        self.rows = model_limits.count_embedding_rows(self.pipeline.model) if texts else None

    @property
    def packed(self) -> bool:
        return self.forwards.is_packed

    @property
    def schedules(self) -> bool:
        return self.forwards.schedules

    @property
    def encoder(self) -> Encoder | None:
        """What computes chunks of any length at once, where the model answers by token."""
        return None if self.forwards.by_token is None else self.forwards.by_token.encoder

    def results(self) -> pa.Schema:
        if self.loaded.schema is not None:
            return self.loaded.schema.remove_metadata()
        if self.declared.results is None:
            raise ValueError(f"the columns that {self.name} adds are not known yet")
        return self.declared.results(self.loaded)

    def expand(self, rows: pa.Table) -> pa.ListArray:
        lists, failed = self.expand_each(rows)
        for error in failed.values():
            raise error
        return lists

    def expand_each(self, rows: pa.Table) -> tuple[pa.ListArray, dict[int, BaseException]]:
        """Return the chunks of the rows that have some, and the errors of the others by position.

        A row that fails costs nothing more: its neighbours need not be decoded again.
        """
        lists, failed = [], {}
        count = 1 if self.levels is None else count_threads(self.pipeline)
        with ThreadPoolExecutor(count) as threads:
            each = map if count == 1 else threads.map
            found = each(self._try_chunks, read_rows(rows, self.keywords.kinds))
            for position, chunks in enumerate(found):
                if isinstance(chunks, BaseException):
                    failed[position] = chunks
                else:
                    lists.append(chunks)
                mark_progress()
        return pa.array(lists, pa.list_(_CHUNK)), failed

    def _try_chunks(self, row: dict[str, Any]) -> list[dict[str, Any]] | BaseException:
        """Return a row's chunks, or the error if the row alone is at fault."""
        try:
            return self._make_chunks(row)
        except BaseException as error:
            if find_blame(error) != "row":
                raise
            return forget_call(error)

    def forward(self, chunks: pa.StructArray) -> pa.Array:
        inputs = [chunk.as_buffer() for chunk in chunks.field("inputs")]
        several = list(zip(inputs, chunks.field("settings").to_pylist(), strict=True))
        outputs = self.forwards(several, len(chunks.field("size").unique()) > 1)
        return pa.array(list(map(pickle_chunk, outputs)), pa.large_binary())

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        return self.tabulate(rows, self.answers(rows, outputs))

    def tabulate(self, rows: pa.Table, answers: list[Any]) -> pa.Table:
        """Return the result columns from what the pipeline answers for each row."""
        schema, seen = self.results(), self.loaded.schema
        columns = COLUMNS_OF_TASK if seen is None else (seen.metadata or {}).get(b"columns")
        if columns != COLUMNS_OF_TASK:
            return as_columns(answers, schema, sampled=columns == COLUMNS_OF_SAMPLE)
        values = self._list_values(rows)
        records = list(map(self.declared.record, answers, values))
        return tabulate_records(records, schema)

    def answers(self, rows: pa.Table, outputs: pa.ListArray) -> list[Any]:
        """Return what `transformers.pipeline` returns for each row. Raises what it raises."""
        found = []
        for payloads, values in zip(outputs.to_pylist(), self._list_values(rows), strict=True):
            answers = [pickle.loads(payload) for payload in payloads]
            failed = (one for one in answers if isinstance(one, DeferredError))
            answer = next(failed, answers[0])
            if self.forwards.chunked and not isinstance(answer, DeferredError):
                _, _, after = self.keywords.of(self.keywords.settings(values))
                answer = self.forwards.postprocess(answers, after)
            if isinstance(answer, DeferredError):
                raise type(answer.error, (Exception,), {})(answer.message)
            found.append(answer)
            mark_progress()
        return found

    @contextmanager
    def open_row(self, row: dict[str, Any]) -> Iterator[Any]:
        """Give what the pipeline's `preprocess` takes for a row; its files exist in the block."""
        kinds, own = self.keywords.kinds, self.keywords.own
        # As they are: what is null in a parameter means something, in a column only that
        # another row has it.
        given = {
            name: self.keywords.given[name]
            for name in self.declared.own_parameters
            if name in kinds and self.keywords.given.get(name) is not None
        }
        with self.open_values({k: v for k, v in row.items() if k not in own}) as found:
            prepared = self.declared.prepare({**given, **found}, self.pipeline)
            yield prepared
            # Of a chat that was made here, as of one that the row has.
            leave_media(getattr(prepared, "messages", None) or [])

    @contextmanager
    def open_values(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Give a row's values, decoded; media beside its folder are found (`FOLDER`)."""
        media, values = self.loaded.media, {k: v for k, v in row.items() if k != FOLDER}
        if folder := row.get(FOLDER):
            media = media.beside(folder)
        with open_row(values, self.keywords.kinds, self.pipeline, media) as found:
            yield found

    def explain_failure(self, row: pa.Table, error: BaseException) -> BaseException:
        return explain_failure(self, row, error)

    def _find_levels(self) -> ImageLevels | None:
        """Return the pipeline for `preprocess` that leaves images as levels, where it may."""
        declared = self.declared
        images = [column.name for column in declared.inputs if column.kind == "image"]
        needs = [c.name for c in declared.inputs if c.required and not c.parameter]
        # A class of the user's may do anything, and one with the model's help needs the numbers.
        may = calls_model_once(self.pipeline) and not declared.expands_with_model
        if not may or len(images) != 1 or needs != images:
            return None
        before, _, _ = self.keywords.of("{}")

        def preprocess(pipeline: Any, file: bytes) -> list[Any]:
            with self.open_row({images[0]: file}) as prepared:
                chunks = pipeline.preprocess(prepared, **copy_kwargs(before))
                return list(chunks) if self.forwards.chunked else [chunks]

        levels = find_levels(self.pipeline, preprocess)
        return None if levels is None else choose_resize(self.pipeline, levels, preprocess)

    def _choose_preparing(self) -> Any:
        """Return the pipeline whose `preprocess` makes the chunks of rows."""
        if self.levels is not None:
            return self.levels.pipeline
        return self.pipeline if self.declared.any_parameter else choose_extractor(self.pipeline)

    def _make_chunks(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        self.keywords.check_row(row)
        own = {k: v for k, v in row.items() if v is not None}
        with self.open_row(row) as prepared:
            settings = self.keywords.settings(own)
            before, during, _ = self.keywords.of(settings)
            beyond = 0
            if isinstance(prepared, str):
                prepared, beyond = self.declared.shorten(
                    prepared, self.pipeline, before, self.limit
                )
            with seed_cuts(self.preparing, prepared):
                inputs = self.preparing.preprocess(prepared, **copy_kwargs(before))
                chunks = list(inputs) if self.forwards.chunked else [inputs]
        if self.forwards.by_token is not None:
            chunks = [strip_padding(chunk) for chunk in chunks]
        if not chunks:
            raise ValueError(f"there is nothing for {self.name} to compute in this row")
        for chunk in chunks:
            # Null for GIT without a prompt.
            ids = chunk.get("input_ids") if isinstance(chunk, Mapping) else None
            tokens = 0 if ids is None else int(ids.shape[-1])
            model_limits.check_token_count(tokens, self.limit, "cut or shorten the text")
            if ids is not None:
                model_limits.check_token_ids(np.asarray(ids).ravel(), self.rows)
        pads = self.forwards.can_pad(during)
        # preprocess may put parameters into lists, and a pipeline reads the first one for all.
        apart = settings if during or self.forwards.by_token is None else ""
        read = prepared if beyond else row.get(self.declared.truncated_column or "")
        lost = count_truncated_tokens(self.pipeline.tokenizer, read, chunks) + beyond
        return [
            {
                "size": chunk_size(chunk),
                "group": batch_group(chunk, apart, pads and not self.forwards.is_empty(chunk)),
                "lost": lost if chunk is chunks[0] else 0,
                "settings": settings,
                "inputs": pickle_chunk(self._quantize(chunk)),
            }
            for chunk in chunks
        ]

    def _quantize(self, chunk: Any) -> Any:
        if self.levels is None:
            return quantize_images(chunk, self.scale)
        dtype = str(self.pipeline.dtype).removeprefix("torch.")
        return quantize_images(chunk, self.scale, self.levels.palette, dtype)

    def _list_values(self, rows: pa.Table) -> list[dict[str, Any]]:
        """Return each row's columns, but for media, over the parameters."""
        kinds, parameters = self.keywords.kinds, self.keywords.given
        names = [n for n in rows.column_names if n != FOLDER and kinds[n] not in MEDIA]
        given = rows.select(names).to_pylist() if names else [{}] * rows.num_rows
        return [{**parameters, **{k: v for k, v in g.items() if v is not None}} for g in given]
