"""token-classification, alias ner, declared over the transformers pipeline."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from .declared import PipelineTask, Values


def _results(loaded: Loaded) -> pa.Schema:
    place = [("word", pa.string()), ("start", pa.int32()), ("end", pa.int32())]
    if loaded.parameters.get("aggregation_strategy", "none") == "none":
        head = [("entity", pa.string()), ("score", pa.float32()), ("index", pa.int32())]
    else:
        head = [("entity_group", pa.string()), ("score", pa.float32())]
    return pa.schema([("entities", pa.list_(pa.struct(head + place)))])


def _record(answer: Any, values: Values) -> Values:
    return {"entities": [{**entity, "score": float(entity["score"])} for entity in answer]}


TOKEN_CLASSIFICATION = PipelineTask(
    name="token-classification",
    adds="entities: a list of structs of entity (or entity_group), score, index, word, start, end",
    inputs=(Column(name="text", kind="text"),),
    parameters={
        "aggregation_strategy": Parameter(
            "none", "str", ("none", "simple", "first", "average", "max")
        ),
        "ignore_labels": Parameter(["O"], "list"),
        "stride": Parameter(None, "int|null"),
        "is_split_into_words": Parameter(False, "bool"),  # the text is a list of words
        "delimiter": Parameter(None, "str|null"),  # joins them: what start and end count in
    },
    results=_results,
    record=_record,
    cuts="text",
    token_outputs=("logits",),
)
