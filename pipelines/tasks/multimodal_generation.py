"""Tasks that generate text from images, or from anything that a model reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from ..adapter.chat_media import build_chat, encode_recordings, fill_media
from ..pipeline_task import PipelineTask, Values
from . import shared_parameters
from .generation_parameters import ONLY_BY_DICT, check_against_model, check_generate_kwargs
from .text_generation import (
    CHAT_PARAMETERS,
    MESSAGES,
    TEXT,
    make_text_record,
    make_text_schema,
    prepare_chat_or_text,
)

_IMAGE = Column(name="image", kind="image", required=False)
_CHAT_PARAMETERS: Mapping[str, Parameter] = {
    **CHAT_PARAMETERS,
    "chat_template_kwargs": Parameter(None, "dict|null"),
    "processor_kwargs": Parameter(None, "dict|null"),
    # All rows may share one, such as "Describe the picture."
    "text": Parameter(None, "str|null"),
}


def _name_template_variables(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Give variables of the chat template as the pipelines take them: among the parameters."""
    made = dict(parameters)
    return {**(made.pop("chat_template_kwargs", None) or {}), **made}


IMAGE_TO_TEXT = PipelineTask(
    name="image-to-text",
    adds="generated_text; with num_return_sequences above 1 generated_texts: a list",
    inputs=(
        Column(name="image", kind="image"),
        Column(name="prompt", kind="text", required=False, parameter=True),
    ),
    parameters={"prompt": Parameter(None, "str|null"), **ONLY_BY_DICT},
    results=make_text_schema("generated_text"),
    record=make_text_record("generated_text"),
    batchable=False,
    written="",
    checks=check_generate_kwargs,
    suits=check_against_model,
    sample=shared_parameters.sample_image,
)


def _prepare_image_and_text(values: Values, pipeline: Any) -> Any:
    if "messages" in values or "text" not in values or "image" not in values:
        return prepare_chat_or_text(values, pipeline)
    if (chat := build_chat(values, pipeline.processor)) is not None:
        return prepare_chat_or_text({"messages": chat}, pipeline)
    return {"images": values["image"], "text": values["text"]}


IMAGE_TEXT_TO_TEXT = PipelineTask(
    name="image-text-to-text",
    adds="generated_text; with num_return_sequences above 1 generated_texts: a list",
    inputs=(_IMAGE, TEXT, MESSAGES),
    one_of=("text", "messages"),
    own_parameters=("text",),
    parameters={
        **_CHAT_PARAMETERS,
        **ONLY_BY_DICT,
    },
    to_pipeline_parameters=_name_template_variables,
    results=make_text_schema("generated_text"),
    record=make_text_record("generated_text"),
    prepare=_prepare_image_and_text,
    batchable=False,
    written="generated_sequence",
    checks=check_generate_kwargs,
    suits=check_against_model,
    sample=lambda pipeline, given: _prepare_image_and_text(
        {"text": "a", "image": shared_parameters.sample_image()}, pipeline
    ),
)


def _prepare_any(values: Values, pipeline: Any) -> Any:
    # This pipeline has another class `Chat` than the other pipelines.
    from transformers.pipelines.any_to_any import Chat

    if "messages" in values:
        chat = values["messages"]
        fill_media(chat, values)
    else:
        chat = build_chat(values, pipeline.processor)
    if chat is not None:
        encode_recordings(chat, pipeline.processor)
        return Chat(chat)
    plural = {"text": "text", "image": "images", "video": "videos", "audio": "audio"}
    if all(values.get(name) is None for name in plural):
        raise ValueError(f"the row has none of {', '.join(plural)}, and no messages")
    return {plural[name]: values.get(name) for name in plural}


def _make_any_schema(loaded: Loaded) -> pa.Schema:
    mode = loaded.parameters.get("generation_mode") or "text"
    if mode == "text":
        return make_text_schema("generated_text")(loaded)
    return pa.schema([(f"generated_{mode}", pa.binary())])


def _to_any_record(answer: Any, values: Values) -> Values:
    from ..media import encode_png

    mode = values.get("generation_mode") or "text"
    if mode == "text":
        return make_text_record("generated_text")(answer, values)
    if mode == "audio":
        raise ValueError(
            "transformers returns generated audio without its sampling rate: set "
            "parameters.generation_mode to text or image"
        )
    return {"generated_image": encode_png(answer[0]["generated_image"])}


ANY_TO_ANY = PipelineTask(
    name="any-to-any",
    adds="generated_text; with num_return_sequences above 1 generated_texts: a list; "
    "with generation_mode image generated_image: PNG",
    inputs=(
        TEXT,
        MESSAGES,
        _IMAGE,
        Column(name="audio", kind="audio", required=False),
        Column(name="video", kind="video", required=False),
    ),
    one_of=("text", "messages", "image", "audio", "video"),
    own_parameters=("text",),
    parameters={
        **_CHAT_PARAMETERS,
        "generation_mode": Parameter(None, "str|null", (None, "text", "image")),
        **ONLY_BY_DICT,
    },
    to_pipeline_parameters=_name_template_variables,
    results=_make_any_schema,
    record=_to_any_record,
    prepare=_prepare_any,
    batchable=False,
    written="generated_sequence",
    checks=check_generate_kwargs,
    suits=check_against_model,
    sample=lambda pipeline, given: _prepare_any({"text": "a"}, pipeline),
)
