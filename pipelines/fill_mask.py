"""fill-mask, declared over the transformers pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from . import choices
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


def _several_masks(columns: Mapping[str, list[Any]], model: Path) -> bool:
    """Whether a row has several masks: then `predictions` holds a list for each, in every row."""
    mask = _mask_token(model)
    return mask is not None and any((text or "").count(mask) > 1 for text in columns["text"])


def _mask_token(model: Path) -> str | None:
    """As the files of the model's folder name it; None where they do not."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            token = json.loads((model / name).read_text(encoding="utf-8")).get("mask_token")
        except (OSError, ValueError):
            continue
        if token:
            return token["content"] if isinstance(token, dict) else token
    return None


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


def _candidates(values: Values, pipeline: Any) -> None:
    size, top_k = pipeline.model.config.get_text_config().vocab_size, values["top_k"]
    if values["targets"] is None and top_k > size:
        raise ValueError(f"top_k ({top_k}) must be at most the {size} tokens of the model")


FILL_MASK = PipelineTask(
    name="fill-mask",
    adds="predictions: a list of structs of score, token, token_str, sequence; a list of "
    "those with several_masks",
    inputs=(
        Column(name="text", kind="text"),
        Column(name="targets", kind="texts", required=False, parameter=True),
        Column(name="top_k", kind="number", required=False, parameter=True),
    ),
    parameters={
        "top_k": choices.count(5),
        "targets": choices.texts(None, "str|list|null"),
        "tokenizer_kwargs": Parameter(None, "dict|null"),
        "several_masks": Parameter(None, "bool|null"),
    },
    results=_results,
    record=_record,
    token_outputs=("logits",),
    reads="masks",
    ours=("several_masks",),
    suits=_candidates,
    sample=lambda pipeline, given: pipeline.tokenizer.mask_token,
    settle={"several_masks": _several_masks},
)
