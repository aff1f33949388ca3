"""token-classification (alias ner): a label for each token or group of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from ..pipeline_task import PipelineTask, Values
from ..text.entities import find_entities
from ..text.truncation import truncate_like_tokenizer
from . import shared_parameters


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
    truncated_column="text",
    shorten=_shorten,
    token_outputs=("logits",),
    suits=_check_windows_advance,
    sample=lambda pipeline, given: ["a"] if given.get("is_split_into_words") else "a",
)
