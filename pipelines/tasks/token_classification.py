"""token-classification (alias ner): a label for each token or group of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import make_lists
from pipemill.actors.task import Column, Loaded, Parameter

from ..adapter.token_columns import TokenColumns, knows_pipeline
from ..pipeline_task import PipelineTask, Values
from ..text import model_limits, token_chunks, windows
from ..text.entities import Entities, EntityFinder, PlacedTokens, find_entities
from ..text.probabilities import compute_softmax
from ..text.truncation import truncate_like_tokenizer
from . import shared_parameters

if TYPE_CHECKING:
    from ..adapter.pipeline_adapter import PipelineAdapter

# Of texts whose entities are found at once: some copies of their scores, in float32, take 100 MB.
_MOST_SCORES = 2**23


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


def _shorten(
    text: str, pipeline: Any, before: Mapping[str, Any], limit: int | None
) -> tuple[str, int]:
    """Truncate a text as the pipeline will, unless it becomes windows."""
    return (text, 0) if "tokenizer_params" in before else truncate_like_tokenizer(text, pipeline)


class TokenClassification(TokenColumns):
    """token-classification of whole texts, many at a time.

    The pipeline takes and makes a dictionary for each text, or token.
    """

    kept = ("input_ids", *token_chunks.SPANS)

    def __init__(self, adapter: PipelineAdapter) -> None:
        super().__init__(adapter)
        self.finder = EntityFinder(self.pipeline, self.keywords)
        limit = model_limits.find_tokenizer_limit(self.pipeline.tokenizer)
        self.window_tokenizer = windows.WindowTokenizer.from_settings(
            self.pipeline, limit, {"truncation": True}, has_spans=True
        )

    @classmethod
    def make(cls, adapter: PipelineAdapter) -> TokenClassification | None:
        """Return the task, if it is known what the pipeline does with a text."""
        from transformers import TokenClassificationPipeline

        before, during, _ = adapter.keywords.of("{}")
        reads_whole_texts = before == {"is_split_into_words": False} and not during
        knows = knows_pipeline(adapter, TokenClassificationPipeline)
        return cls(adapter) if knows and reads_whole_texts else None

    def expand_each(self, rows: pa.Table) -> tuple[pa.ListArray, dict[int, BaseException]]:
        """Return the chunks of texts that are not too long, and the errors of the others."""
        lists = self.window_tokenizer.make_chunks(rows["text"].to_pylist())
        return self.leave_out_long(lists)

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        tokens = pc.list_value_length(outputs.flatten().field("input_ids")).to_numpy()
        scores = np.cumsum(tokens * self.pipeline.model.config.num_labels)
        cuts = np.flatnonzero(np.diff(scores // _MOST_SCORES)) + 1
        edges = [0, *cuts.tolist(), len(outputs)]
        tables = [
            self._regroup_some(rows.slice(a, b - a), outputs.slice(a, b - a))
            for a, b in zip(edges, edges[1:], strict=False)
        ]
        return pa.concat_tables(tables)

    def _regroup_some(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
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
        ids, *spans = (chunks.field(name).flatten().to_numpy() for name in self.kept)
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
        structs = pa.StructArray.from_arrays(arrays, fields=fields)
        return pa.table([make_lists(structs, found.counts)], schema=schema)


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
