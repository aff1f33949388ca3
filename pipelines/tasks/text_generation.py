"""Tasks that generate text from texts and chats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from ..adapter.chat_media import fill_media
from ..adapter.chat_text import append_reply, message_text
from ..adapter.row_values import read_messages
from ..pipeline_task import PipelineTask, Values
from ..text.translation_languages import check_languages
from ..text.truncation import truncate_like_tokenizer
from . import shared_parameters
from .generation_parameters import (
    GENERATION,
    ROW_SETTINGS,
    check_generation,
    flatten_generate_kwargs,
    returns_several,
)

_CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TEXT = Column(name="text", kind="text", required=False)
MESSAGES = Column(name="messages", kind="messages", required=False)
_RECORD = Parameter(None, "dict")
CHAT_PARAMETERS: Mapping[str, Parameter] = {
    "return_full_text": Parameter(None, "bool|null"),
    "clean_up_tokenization_spaces": Parameter(None, "bool|null"),
    "stop_sequence": shared_parameters.texts(None, "str|list|null"),
    "continue_final_message": Parameter(None, "bool|null"),
    "skip_special_tokens": Parameter(None, "bool|null"),
    "tools": Parameter(None, "list|null", each=_RECORD),
}


def make_text_schema(name: str) -> Callable[[Loaded], pa.Schema]:
    """Make the `results` of a task with one text per row, in the column `name`.

    If `num_return_sequences` is above 1, the column is a list of texts, and its name gets an "s".
    """

    def results(loaded: Loaded) -> pa.Schema:
        if returns_several(loaded):
            return pa.schema([(f"{name}s", pa.list_(pa.string()))])
        return pa.schema([(name, pa.string())])

    return results


def make_text_record(name: str) -> Callable[[Any, Values], Values]:
    """Make the `record` that goes with `make_text_schema`."""

    def record(answer: Any, values: Values) -> Values:
        texts = [message_text(sequence[name]) for sequence in answer]
        return {name: texts[0], f"{name}s": texts}

    return record


def prepare_chat_or_text(values: Values, pipeline: Any) -> Any:
    """Return a row's chat, with the row's media in it, or its text.

    Raises:
        ValueError: for a row with neither.
    """
    from transformers.utils.chat_template_utils import Chat

    if "messages" in values:
        if pipeline.processor is not None:
            fill_media(values["messages"], values)
        return Chat(values["messages"])
    if "text" not in values:
        raise ValueError("the row has neither a text nor messages")
    return values["text"]


def _make_chat_schema(loaded: Loaded) -> pa.Schema:
    schema = make_text_schema("generated_text")(loaded)
    return schema.append(pa.field("messages", _CHAT)) if "messages" in loaded.columns else schema


def _to_chat_record(answer: Any, values: Values) -> Values:
    record = make_text_record("generated_text")(answer, values)
    if values.get("messages") is not None:
        chat = answer[0]["generated_text"]
        if isinstance(chat, str):  # return_full_text: false
            chat = append_reply(
                read_messages(values["messages"]), chat, values.get("continue_final_message")
            )
        record["messages"] = [{"role": m["role"], "content": message_text([m])} for m in chat]
    return record


TEXT_GENERATION = PipelineTask(
    name="text-generation",
    adds="generated_text; of a chat also messages; with num_return_sequences above 1 "
    "generated_texts: a list",
    inputs=(TEXT, MESSAGES, *ROW_SETTINGS),
    one_of=("text", "messages"),
    parameters={
        **CHAT_PARAMETERS,
        "prefix": Parameter(None, "str|null"),
        "handle_long_generation": Parameter(None, "str|null", (None, "hole")),
        "truncation": shared_parameters.truncation(None),
        "padding": shared_parameters.padding(None),
        "add_special_tokens": Parameter(None, "bool|null"),
        "tokenizer_encode_kwargs": Parameter(None, "dict|null"),
        "documents": Parameter(None, "list|null", each=_RECORD),
        "json_schema": Parameter(None, "dict|null", filled=True),
        **GENERATION,
    },
    to_pipeline_parameters=flatten_generate_kwargs,
    results=_make_chat_schema,
    record=_to_chat_record,
    prepare=prepare_chat_or_text,
    written="generated_sequence",
    checks=check_generation,
    sample=lambda pipeline, given: "a",
)


def _check_one_reply(values: Values) -> None:
    check_generation(values)
    if (flatten_generate_kwargs(values).get("num_return_sequences") or 1) > 1:
        raise ValueError(
            "num_return_sequences must be 1: a conversation continues with one reply (for several, "
            "use the task text-generation)"
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
    to_pipeline_parameters=flatten_generate_kwargs,
    results=_make_chat_schema,
    record=lambda answer, values: _to_chat_record([{"generated_text": answer}], values),
    batchable=False,
    written="output_ids",
    checks=_check_one_reply,
    sample=lambda pipeline, given: [{"role": "user", "content": "a"}],
)


def _shorten(
    text: str, pipeline: Any, before: Mapping[str, Any], limit: int | None
) -> tuple[str, int]:
    cuts = before.get("truncation") in (True, "longest_first", "only_first")
    return truncate_like_tokenizer(text, pipeline) if cuts else (text, 0)


def _make_seq2seq_task(
    name: str,
    column: str,
    suits: Callable[[Values, Any], None] = lambda values, pipeline: None,
    own: tuple[Column, ...] = (),
    **more: Parameter,
) -> PipelineTask:
    """Make a task in which an encoder reads a text and a decoder writes one.

    Args:
        name: the task's name.
        column: the result column.
        suits: as in `PipelineTask`.
        own: columns of parameters that a row may have, beside those that all of these tasks have.
        more: parameters beside those that all of these tasks have.
    """
    return PipelineTask(
        name=name,
        adds=f"{column}; with num_return_sequences above 1 {column}s: a list",
        inputs=(Column(name="text", kind="text"), *ROW_SETTINGS, *own),
        parameters={
            "truncation": shared_parameters.truncation(False),
            "clean_up_tokenization_spaces": Parameter(False, "bool"),
            "stop_sequence": shared_parameters.texts(None, "str|null"),
            **more,
            **GENERATION,
        },
        to_pipeline_parameters=flatten_generate_kwargs,
        results=make_text_schema(column),
        record=make_text_record(column),
        truncated_column="text",
        shorten=_shorten,
        written="output_ids",
        checks=check_generation,
        suits=suits,
        sample=lambda pipeline, given: "a",
    )


TEXT2TEXT_GENERATION = _make_seq2seq_task("text2text-generation", "generated_text")
SUMMARIZATION = _make_seq2seq_task("summarization", "summary_text")


TRANSLATION = _make_seq2seq_task(
    "translation",
    "translation_text",
    suits=check_languages,
    own=tuple(
        Column(name=name, kind="text", required=False, parameter=True)
        for name in ("src_lang", "tgt_lang")
    ),
    src_lang=shared_parameters.texts(None, "str|null"),
    tgt_lang=shared_parameters.texts(None, "str|null"),
)
