"""fill-mask, declared over the transformers pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column

from .any_pipeline import PipelineTask

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


def _results(pipeline: Any, parameters: Mapping[str, Any]) -> pa.Schema:
    several = parameters.get("several_masks", False)
    return pa.schema([("predictions", pa.list_(_PREDICTIONS) if several else _PREDICTIONS)])


def _record(answer: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    nested = bool(answer) and isinstance(answer[0], list)
    if parameters.get("several_masks", False):
        return {"predictions": answer if nested else [answer]}
    if nested:
        raise ValueError(
            f"the text has {len(answer)} masks; with parameters.several_masks set to true "
            "`predictions` holds a list for each"
        )
    return {"predictions": answer}


FILL_MASK = PipelineTask(
    name="fill-mask",
    inputs=(Column(name="text", kind="text"),),
    parameters={"top_k": 5, "targets": None, "tokenizer_kwargs": None, "several_masks": False},
    results=_results,
    record=_record,
    ours=("several_masks",),
)
