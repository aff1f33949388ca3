"""token-classification, alias ner, declared over the transformers pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column

from .any_pipeline import PipelineTask


def _results(pipeline: Any, parameters: Mapping[str, Any]) -> pa.Schema:
    place = [("word", pa.string()), ("start", pa.int32()), ("end", pa.int32())]
    if (parameters.get("aggregation_strategy") or "none").lower() == "none":
        head = [("entity", pa.string()), ("score", pa.float32()), ("index", pa.int32())]
    else:
        head = [("entity_group", pa.string()), ("score", pa.float32())]
    return pa.schema([("entities", pa.list_(pa.struct(head + place)))])


def _record(answer: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"entities": [{**entity, "score": float(entity["score"])} for entity in answer]}


TOKEN_CLASSIFICATION = PipelineTask(
    name="token-classification",
    inputs=(Column(name="text", kind="text"),),
    parameters={"aggregation_strategy": "none", "ignore_labels": ["O"], "stride": None},
    results=_results,
    record=_record,
)
