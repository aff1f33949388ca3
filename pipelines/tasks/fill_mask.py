"""fill-mask: the most likely tokens for each mask of a text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from ..pipeline_task import PipelineTask, Values
from ..text import model_limits
from ..text.long_texts import tokenize
from . import shared_parameters

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

_MAX_WORD = 64  # the most characters that are left out to begin and end with whole words


def _make_schema(loaded: Loaded) -> pa.Schema:
    several = loaded.parameters.get("several_masks", False)
    return pa.schema([("predictions", pa.list_(_PREDICTIONS) if several else _PREDICTIONS)])


def _has_several_masks(columns: Mapping[str, list[Any]], model: Path) -> bool:
    """Return whether a row has several masks.

    Then `predictions` holds a list for each mask, in every row.
    """
    mask = _read_mask_token(model)
    return mask is not None and any((text or "").count(mask) > 1 for text in columns["text"])


def _read_mask_token(model: Path) -> str | None:
    """Return the mask token that the files of the model's folder name; None if they do not."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            token = json.loads((model / name).read_text(encoding="utf-8")).get("mask_token")
        except (OSError, ValueError):
            continue
        if token:
            return token["content"] if isinstance(token, dict) else token
    return None


def _to_predictions(answer: Any, values: Values) -> Values:
    nested = bool(answer) and isinstance(answer[0], list)
    if values.get("several_masks", False):
        return {"predictions": answer if nested else [answer]}
    if nested:
        raise ValueError(
            f"the text has {len(answer)} masks, and predictions has room for one: set "
            "parameters.several_masks to true to get a list for each mask"
        )
    return {"predictions": answer}


def _check_top_k(values: Values, pipeline: Any) -> None:
    size, top_k = pipeline.model.config.get_text_config().vocab_size, values["top_k"]
    # Where targets are a column they are missing here: each row is checked with its own.
    if "targets" in values and values["targets"] is None and top_k > size:
        raise ValueError(f"top_k ({top_k}) must be at most the model's {size} tokens")


def _shorten_around_masks(text: str, pipeline: Any, before: Mapping[str, Any]) -> tuple[str, int]:
    """Cut a text that is longer than the model to the whole words around its masks.

    A text is left as it is if the user sets how it is tokenized, and perhaps truncated.

    Returns:
        The part of the text, and how many tokens it lacks.
    """
    tokenizer, limit = pipeline.tokenizer, model_limits.count_positions(pipeline.model)
    fast = limit is not None and tokenizer.is_fast and "tokenizer_kwargs" not in before
    if not fast or len(text) < limit - tokenizer.num_special_tokens_to_add():
        return text, 0
    tokens = tokenize(tokenizer, text)
    room = limit - tokenizer.num_special_tokens_to_add()
    masks = np.flatnonzero(tokens.ids == tokenizer.mask_token_id)
    while len(tokens.ids) > room and len(masks) and masks[-1] - masks[0] < room > 0:
        part = _cut_window(text, tokens.begins, int(masks[0]), int(masks[-1]), room)
        ids = tokenize(tokenizer, part).ids
        has_all_masks = np.count_nonzero(ids == tokenizer.mask_token_id) == len(masks)
        if has_all_masks and len(ids) + tokenizer.num_special_tokens_to_add() <= limit:
            return part, len(tokens.ids) - len(ids)
        room -= max(len(ids) + tokenizer.num_special_tokens_to_add() - limit, 1)
    return text, 0


def _cut_window(text: str, begins: np.ndarray, first: int, last: int, room: int) -> str:
    """Return a part of the text with the masks in its middle.

    Args:
        text: the whole text.
        begins: the character where each of its tokens begins, shape (tokens,).
        first: the first mask, as a number among the tokens.
        last: the last mask.
        room: the number of tokens of the part.
    """
    start = min(max(first - (room - (last - first + 1)) // 2, 0), len(begins) - room)
    stop = start + room
    begin = int(begins[start])
    end = int(begins[stop]) if stop < len(begins) else len(text)
    # A part of a word may be another token than it is in the word; not all scripts have spaces.
    mask_ends = int(begins[last + 1]) if last + 1 < len(begins) else len(text)
    left = range(begin, min(begin + _MAX_WORD, int(begins[first])))
    right = range(end, max(end - _MAX_WORD, mask_ends), -1)
    begin = begin and next((i for i in left if _is_gap(text, i)), begin)
    end = end if end == len(text) else next((i for i in right if _is_gap(text, i)), end)
    return text[begin:end]


def _is_gap(text: str, index: int) -> bool:
    """Return whether a word ends or begins at this character."""
    return text[index - 1].isspace() or text[index].isspace()


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
        "top_k": shared_parameters.count(5),
        "targets": shared_parameters.texts(None, "str|list|null"),
        "tokenizer_kwargs": Parameter(None, "dict|null"),
        "several_masks": Parameter(None, "bool|null"),
    },
    results=_make_schema,
    record=_to_predictions,
    token_outputs=("logits",),
    reads_tokens="masks",
    own_parameters=("several_masks",),
    suits=_check_top_k,
    shorten=_shorten_around_masks,
    sample=lambda pipeline, given: pipeline.tokenizer.mask_token,
    infer_parameters={"several_masks": _has_several_masks},
)
