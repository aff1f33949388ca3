"""token-classification (alias ner): a label for each token or group of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.device_transfer import Outputs, to_host_async
from pipemill.actors.task import Column, Loaded, Parameter

from ..pipeline_task import PipelineTask, Values
from ..text import model_limits, token_chunks, windows
from ..text.entities import Entities, EntityFinder, PlacedTokens, find_entities
from ..text.probabilities import compute_softmax
from ..text.truncation import truncate_like_tokenizer
from ..text.word_table import is_plain_tokenizer
from . import shared_parameters

if TYPE_CHECKING:
    from ..adapter.pipeline_adapter import PipelineAdapter

# Fields of chunks that their outputs have, too.
_KEPT = ("input_ids", *token_chunks.SPANS)


def _make_schema(loaded: Loaded) -> pa.Schema:
    span = [("word", pa.string()), ("start", pa.int32()), ("end", pa.int32())]
    if loaded.parameters.get("aggregation_strategy", "none") == "none":
        label = [("entity", pa.string()), ("score", pa.float32()), ("index", pa.int32())]
    else:
        label = [("entity_group", pa.string()), ("score", pa.float32())]
    return pa.schema([("entities", pa.list_(pa.struct(label + span)))])


def _to_entities(answer: Any, values: Values) -> Values:
    return {"entities": [{**entity, "score": float(entity["score"])} for entity in answer]}


def _check_windows_advance(values: Values, pipeline: Any) -> None:
    stride, tokenizer = values["stride"], pipeline.tokenizer
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if stride is not None and stride >= room:
        raise ValueError(
            f"stride ({stride}), which two windows share, must be less than the {room} tokens of a "
            "window (the tokenizer's model_max_length without special tokens)"
        )
    if values["is_split_into_words"] and not tokenizer.is_fast:
        raise ValueError(
            f"is_split_into_words needs a fast tokenizer, and {type(tokenizer).__name__} is not "
            "one: leave it out, and give each text as one string"
        )


def _shorten(text: str, pipeline: Any, before: Mapping[str, Any]) -> tuple[str, int]:
    """Truncate a text as the pipeline will, unless it becomes windows."""
    return (text, 0) if "tokenizer_params" in before else truncate_like_tokenizer(text, pipeline)


class TokenClassification:
    """token-classification of whole texts, many at a time.

    The pipeline takes and makes a dictionary for each text, or token.
    """

    name, schedules = "token-classification", False

    def __init__(self, adapter: PipelineAdapter) -> None:
        assert adapter.encoder is not None
        self.adapter, self.encoder = adapter, adapter.encoder
        self.pipeline, self.inputs = adapter.pipeline, adapter.inputs
        self.repeats, self.explain_failure = adapter.repeats, adapter.explain_failure
        _, _, self.keywords = adapter.keywords.of("{}")
        self.finder = EntityFinder(self.pipeline, self.keywords)
        limit = model_limits.find_tokenizer_limit(self.pipeline.tokenizer)
        settings = {name: p.default for name, p in windows.PARAMETERS.items()}
        self.window_tokenizer = windows.WindowTokenizer.from_settings(
            self.pipeline, limit, {**settings, "truncation": True}, has_spans=True
        )

    @classmethod
    def make(cls, adapter: PipelineAdapter) -> TokenClassification | None:
        """Return the task, if it is known what the pipeline does with a text."""
        from transformers import TokenClassificationPipeline

        pipeline, (before, during, _) = adapter.pipeline, adapter.keywords.of("{}")
        knows_pipeline = (
            type(pipeline) is TokenClassificationPipeline
            and is_plain_tokenizer(pipeline.tokenizer)
            and not adapter.declared.any_parameter
            and adapter.loaded.schema is None
        )
        reads_whole_texts = before == {"is_split_into_words": False} and not during
        return cls(adapter) if knows_pipeline and reads_whole_texts else None

    @property
    def packed(self) -> bool:
        return self.encoder.is_packed

    def results(self) -> pa.Schema:
        return self.adapter.results()

    def expand(self, rows: pa.Table) -> pa.ListArray:
        lists, failed = self.expand_each(rows)
        for error in failed.values():
            raise error
        return lists

    def expand_each(self, rows: pa.Table) -> tuple[pa.ListArray, dict[int, BaseException]]:
        """Return the chunks of texts that are not too long, and the errors of the others."""
        lists = self.window_tokenizer.make_chunks(rows["text"].to_pylist())
        sizes, limit = lists.flatten().field("size").to_numpy(), self.adapter.limit
        if limit is None or sizes.max(initial=0) <= limit:
            return lists, {}
        long = np.flatnonzero(sizes > limit).tolist()
        advice = "cut or shorten the text"
        failed: dict[int, BaseException] = {
            i: model_limits.explain_token_count(int(sizes[i]), limit, advice) for i in long
        }
        return lists.filter(pa.array(sizes <= limit)), failed

    def forward(self, chunks: pa.StructArray) -> Outputs:
        logits, lengths = self.encoder(chunks)
        fields = [chunks.field(name) for name in _KEPT]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())

        def convert(array: np.ndarray) -> pa.StructArray:
            of_tokens = pa.ListArray.from_arrays(offsets, token_chunks.to_vector_array(array))
            return pa.StructArray.from_arrays([*fields, of_tokens], names=[*_KEPT, "logits"])

        return to_host_async(logits, convert)

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        chunks, texts = outputs.flatten(), rows["text"].to_pylist()
        counts = pc.list_value_length(chunks.field("input_ids")).to_numpy()
        numbers = np.repeat(np.arange(len(texts)), counts)
        scores = compute_softmax(token_chunks.to_matrix(chunks.field("logits").flatten()))
        strange = set(numbers[np.isnan(scores).any(axis=1)].tolist())
        forwards, plain = self.adapter.forwards, {}
        for i, text in enumerate(texts):
            if i in strange or not forwards.trusts_postprocess:
                output = _make_output(text, chunks.slice(i, 1))
                plain[i] = forwards.postprocess([output], self.keywords)
        ids, *spans = (chunks.field(name).flatten().to_numpy() for name in _KEPT)
        own = (spans[0] >= 0) & ~np.isin(numbers, list(plain))
        places = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
        tokens = PlacedTokens(
            texts=texts,
            numbers=numbers[own],
            ids=ids[own],
            places=places[own],
            spans=np.stack(spans, axis=1)[own],
        )
        found = self.finder.find(tokens, scores[own])
        table = self._make_table(found)
        if not plain:
            return table
        which = pa.array(list(plain))
        answered = self.adapter.tabulate(rows.take(which), list(plain.values()))
        order = np.arange(len(texts))
        order[list(plain)] = len(texts) + np.arange(len(plain))
        return pa.concat_tables([table, answered]).take(pa.array(order))

    def _make_table(self, found: Entities) -> pa.Table:
        schema = self.results()
        type = schema.field("entities").type
        # A model may call its labels 0 and 1.
        labels = [str(name) if isinstance(name, int | float) else name for name in found.labels]
        names = "entity_group" if found.places is None else "entity"
        values = {
            names: labels,
            "score": found.scores,
            "index": found.places,
            "word": found.words,
            "start": found.spans[:, 0],
            "end": found.spans[:, 1],
        }
        fields = list(type.value_type)
        arrays = [pa.array(values[field.name], field.type) for field in fields]
        offsets = pa.array(np.concatenate([[0], np.cumsum(found.counts)]), pa.int32())
        structs = pa.StructArray.from_arrays(arrays, fields=fields)
        return pa.table([pa.ListArray.from_arrays(offsets, structs)], schema=schema)


def _make_output(text: str, chunk: pa.StructArray) -> Values:
    """Return what the pipeline's `_forward` would return for a text, from its chunk's output."""
    import torch

    spans = np.stack([chunk.field(name).flatten() for name in token_chunks.SPANS], axis=1)
    arrays = {
        "logits": token_chunks.to_matrix(chunk.field("logits").flatten()),
        "input_ids": chunk.field("input_ids").flatten().to_numpy(),
        "offset_mapping": spans,
        "special_tokens_mask": spans[:, 0] < 0,
    }
    # Copies: torch wants arrays that it may write to.
    tensors = {name: torch.from_numpy(array.copy())[None] for name, array in arrays.items()}
    return {**tensors, "sentence": text, "is_last": True}


TOKEN_CLASSIFICATION = PipelineTask(
    name="token-classification",
    adds="entities: a list of structs of entity (or entity_group), score, index, word, start, end",
    inputs=(Column(name="text", kind="text"),),
    parameters={
        "aggregation_strategy": Parameter(
            "none", "str", ("none", "simple", "first", "average", "max")
        ),
        "ignore_labels": Parameter(["O"], "list", each=shared_parameters.TEXT),
        "stride": shared_parameters.count(None),
        "is_split_into_words": Parameter(False, "bool"),  # the text is a list of words
        "delimiter": Parameter(None, "str|null"),  # joins the words; start and end count it, too
    },
    results=_make_schema,
    record=_to_entities,
    postprocess=find_entities,
    speed_up=TokenClassification.make,
    truncated_column="text",
    shorten=_shorten,
    token_outputs=("logits",),
    suits=_check_windows_advance,
    sample=lambda pipeline, given: ["a"] if given.get("is_split_into_words") else "a",
)
