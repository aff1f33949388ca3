"""fill-mask, declared over the transformers pipeline."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from .declared import PipelineTask, Values

_PREDICTIONS = pa.list_(
    pa.struct(
        [
            ("score", pa.float32()),
            ("token", pa.int32()),
            ("token_str", pa.string()),
            ("sequence", pa.string()),
        ]
    )
)


def _results(loaded: Loaded) -> pa.Schema:
    several = loaded.parameters.get("several_masks", False)
    return pa.schema([("predictions", pa.list_(_PREDICTIONS) if several else _PREDICTIONS)])


def _record(answer: Any, values: Values) -> Values:
    nested = bool(answer) and isinstance(answer[0], list)
    if values.get("several_masks", False):
        return {"predictions": answer if nested else [answer]}
    if nested:
        raise ValueError(
            f"the text has {len(answer)} masks; with parameters.several_masks set to true "
            "`predictions` holds a list for each"
        )
    return {"predictions": answer}


FILL_MASK = PipelineTask(
    name="fill-mask",
    adds="predictions: a list of structs of score, token, token_str, sequence; a list of "
    "those with several_masks",
    inputs=(
        Column(name="text", kind="text"),
        Column(name="targets", kind="labels", required=False, parameter=True),
        Column(name="top_k", kind="number", required=False, parameter=True),
    ),
    parameters={
        "top_k": Parameter(5, "int"),
        "targets": Parameter(None, "str|list|null"),
        "tokenizer_kwargs": Parameter(None, "dict|null"),
        "several_masks": Parameter(False, "bool"),
    },
    results=_results,
    record=_record,
    ours=("several_masks",),
)
