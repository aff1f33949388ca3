"""Tasks that generate text: from text, chats, images, or anything a model reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from ..adapter.chat_media import chat_beside, fill_media
from ..adapter.chat_text import append_reply, message_text
from ..adapter.row_values import messages_of
from ..pipeline_task import PipelineTask, Values
from ..text.prefixes import beginning_told
from . import shared_parameters
from .generation_parameters import (
    GENERATION,
    ONLY_BY_DICT,
    check_dict,
    check_generation,
    check_known,
    flatten_generate_kwargs,
    returns_several,
)

_CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TEXT = Column(name="text", kind="text", required=False)
_MESSAGES = Column(name="messages", kind="messages", required=False)
_IMAGE = Column(name="image", kind="image", required=False)
_RECORD = Parameter(None, "dict")
_SHAPE: Mapping[str, Parameter] = {
    "return_full_text": Parameter(None, "bool|null"),
    "clean_up_tokenization_spaces": Parameter(None, "bool|null"),
    "stop_sequence": shared_parameters.texts(None, "str|list|null"),
    "continue_final_message": Parameter(None, "bool|null"),
    "skip_special_tokens": Parameter(None, "bool|null"),
    "tools": Parameter(None, "list|null", each=_RECORD),
}


def texts(name: str) -> Callable[[Loaded], pa.Schema]:
    """A column of one text, or of lists of them where a row has several."""

    def results(loaded: Loaded) -> pa.Schema:
        if returns_several(loaded):
            return pa.schema([(f"{name}s", pa.list_(pa.string()))])
        return pa.schema([(name, pa.string())])

    return results


def texts_of(name: str) -> Callable[[Any, Values], Values]:
    def record(answer: Any, values: Values) -> Values:
        found = [message_text(one[name]) for one in answer]
        return {name: found[0], f"{name}s": found}

    return record


def _chat_or_text(values: Values, pipeline: Any) -> Any:
    from transformers.utils.chat_template_utils import Chat

    if "messages" in values:
        if pipeline.processor is not None:
            fill_media(values["messages"], values)
        return Chat(values["messages"])
    if "text" not in values:
        raise ValueError("the row has neither a text nor messages")
    return values["text"]


def _generated(loaded: Loaded) -> pa.Schema:
    schema = texts("generated_text")(loaded)
    return schema.append(pa.field("messages", _CHAT)) if "messages" in loaded.columns else schema


def _record(answer: Any, values: Values) -> Values:
    record = texts_of("generated_text")(answer, values)
    if values.get("messages") is not None:
        whole = answer[0]["generated_text"]
        if isinstance(whole, str):  # return_full_text: false
            whole = append_reply(
                messages_of(values["messages"]), whole, values.get("continue_final_message")
            )
        record["messages"] = [{"role": m["role"], "content": message_text([m])} for m in whole]
    return record


TEXT_GENERATION = PipelineTask(
    name="text-generation",
    adds="generated_text; of a chat also messages; with num_return_sequences above 1 "
    "generated_texts: a list",
    inputs=(_TEXT, _MESSAGES),
    one_of=("text", "messages"),
    parameters={
        **_SHAPE,
        "prefix": Parameter(None, "str|null"),
        "handle_long_generation": Parameter(None, "str|null", (None, "hole")),
        "truncation": shared_parameters.truncation(None),
        "padding": shared_parameters.padding(None),
        "add_special_tokens": Parameter(None, "bool|null"),
        "tokenizer_encode_kwargs": Parameter(None, "dict|null"),
        "documents": Parameter(None, "list|null", each=_RECORD),
        **GENERATION,
    },
    given=flatten_generate_kwargs,
    results=_generated,
    record=_record,
    prepare=_chat_or_text,
    written="generated_sequence",
    checks=check_generation,
    sample=lambda pipeline, given: "a",
)


def _one_reply(values: Values) -> None:
    check_generation(values)
    if (flatten_generate_kwargs(values).get("num_return_sequences") or 1) > 1:
        raise ValueError(
            "num_return_sequences must be 1: a conversation goes on with one reply (for several, "
            "use text-generation)"
        )


CONVERSATIONAL = PipelineTask(
    name="conversational",
    adds="generated_text, messages; with num_return_sequences above 1 generated_texts: a list",
    inputs=(Column(name="messages", kind="messages"),),
    parameters={
        "clean_up_tokenization_spaces": Parameter(True, "bool"),
        "continue_final_message": Parameter(None, "bool|null"),
        "stop_sequence": shared_parameters.texts(None, "str|null"),
        "tokenizer_encode_kwargs": Parameter(None, "dict|null"),
        **GENERATION,
    },
    given=flatten_generate_kwargs,
    results=_generated,
    record=lambda answer, values: _record([{"generated_text": answer}], values),
    stacks=False,
    checks=_one_reply,
    sample=lambda pipeline, given: [{"role": "user", "content": "a"}],
)


def _shortened(text: str, pipeline: Any, before: Mapping[str, Any]) -> tuple[str, int]:
    cuts = before.get("truncation") in (True, "longest_first", "only_first")
    return beginning_told(text, pipeline) if cuts else (text, 0)


def _seq2seq(
    name: str,
    column: str,
    suits: Callable[[Values, Any], None] = lambda values, pipeline: None,
    **more: Parameter,
) -> PipelineTask:
    """Of the tasks in which an encoder reads a text and a decoder writes one."""
    return PipelineTask(
        name=name,
        adds=f"{column}; with num_return_sequences above 1 {column}s: a list",
        inputs=(Column(name="text", kind="text"),),
        parameters={
            "truncation": shared_parameters.truncation(False),
            "clean_up_tokenization_spaces": Parameter(False, "bool"),
            "stop_sequence": shared_parameters.texts(None, "str|null"),
            **more,
            **GENERATION,
        },
        given=flatten_generate_kwargs,
        results=texts(column),
        record=texts_of(column),
        cuts="text",
        shorten=_shortened,
        written="output_ids",
        checks=check_generation,
        suits=suits,
        sample=lambda pipeline, given: "a",
    )


TEXT2TEXT_GENERATION = _seq2seq("text2text-generation", "generated_text")
SUMMARIZATION = _seq2seq("summarization", "summary_text")


def _languages(values: Values, pipeline: Any) -> None:
    pair = len(pipeline.task.split("_")) == 4
    missing = [name for name in ("src_lang", "tgt_lang") if values[name] is None]
    if missing and not pair and hasattr(pipeline.tokenizer, "_build_translation_inputs"):
        raise ValueError(
            f"{type(pipeline.tokenizer).__name__} asks for both src_lang and tgt_lang: set "
            f"parameters.{' and parameters.'.join(missing)}, or name them in the task "
            "(translation_XX_to_YY)"
        )


TRANSLATION = _seq2seq(
    "translation",
    "translation_text",
    suits=_languages,
    src_lang=shared_parameters.texts(None, "str|null"),
    tgt_lang=shared_parameters.texts(None, "str|null"),
)

IMAGE_TO_TEXT = PipelineTask(
    name="image-to-text",
    adds="generated_text; with num_return_sequences above 1 generated_texts: a list",
    inputs=(
        Column(name="image", kind="image"),
        Column(name="prompt", kind="text", required=False, parameter=True),
    ),
    parameters={"prompt": Parameter(None, "str|null"), **ONLY_BY_DICT},
    results=texts("generated_text"),
    record=texts_of("generated_text"),
    stacks=False,
    checks=check_dict,
    suits=check_known,
)


def _multimodal(values: Values, pipeline: Any) -> Any:
    if "messages" in values or "text" not in values or "image" not in values:
        return _chat_or_text(values, pipeline)
    if (chat := chat_beside(values, pipeline.processor)) is not None:
        return _chat_or_text({"messages": chat}, pipeline)
    return {"images": values["image"], "text": values["text"]}


IMAGE_TEXT_TO_TEXT = PipelineTask(
    name="image-text-to-text",
    adds="generated_text; with num_return_sequences above 1 generated_texts: a list",
    inputs=(_IMAGE, _TEXT, _MESSAGES),
    one_of=("text", "messages"),
    parameters={**_SHAPE, "processor_kwargs": Parameter(None, "dict|null"), **ONLY_BY_DICT},
    results=texts("generated_text"),
    record=texts_of("generated_text"),
    prepare=_multimodal,
    stacks=False,
    checks=check_dict,
    suits=check_known,
)


def _anything(values: Values, pipeline: Any) -> Any:
    # A class of its own: that of the other pipelines it does not know.
    from transformers.pipelines.any_to_any import Chat

    if "messages" in values:
        fill_media(values["messages"], values)
        return Chat(values["messages"])
    if (chat := chat_beside(values, pipeline.processor)) is not None:
        return Chat(chat)
    plural = {"text": "text", "image": "images", "video": "videos", "audio": "audio"}
    return {plural[name]: values.get(name) for name in plural}


def _any_results(loaded: Loaded) -> pa.Schema:
    mode = loaded.parameters.get("generation_mode") or "text"
    if mode == "text":
        return texts("generated_text")(loaded)
    return pa.schema([(f"generated_{mode}", pa.binary())])


def _any_record(answer: Any, values: Values) -> Values:
    from ..media import png

    mode = values.get("generation_mode") or "text"
    if mode == "text":
        return texts_of("generated_text")(answer, values)
    if mode == "audio":
        raise ValueError("generated audio has no sampling rate in transformers' answer")
    return {"generated_image": png(answer[0]["generated_image"])}


ANY_TO_ANY = PipelineTask(
    name="any-to-any",
    adds="generated_text; with num_return_sequences above 1 generated_texts: a list; "
    "with generation_mode image generated_image: PNG",
    inputs=(
        _TEXT,
        _MESSAGES,
        _IMAGE,
        Column(name="audio", kind="audio", required=False),
        Column(name="video", kind="video", required=False),
    ),
    one_of=("text", "messages", "image"),
    parameters={
        **_SHAPE,
        "processor_kwargs": Parameter(None, "dict|null"),
        "generation_mode": Parameter(None, "str|null", (None, "text", "image")),
        **ONLY_BY_DICT,
    },
    results=_any_results,
    record=_any_record,
    prepare=_anything,
    stacks=False,
    checks=check_dict,
    suits=check_known,
)
