"""Tasks that answer a question about a text, a table, an image or a document, or decide one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from .declared import PipelineTask, Values, fixed

_IMAGE = Column(name="image", kind="image")
_QUESTION = Column(name="question", kind="text", parameter=True)
_TOP_K = Column(name="top_k", kind="number", required=False, parameter=True)
_SPAN = [
    ("answer", pa.string()),
    ("score", pa.float32()),
    ("start", pa.int32()),
    ("end", pa.int32()),
]


def _ranks(loaded: Loaded, default: int) -> bool:
    """Whether a row has a list of answers."""
    top_k = loaded.parameters.get("top_k", loaded.parameters.get("topk", default))
    return "top_k" in loaded.columns or top_k != 1


def _spans(loaded: Loaded) -> pa.Schema:
    if _ranks(loaded, 1):
        return pa.schema([("answers", pa.list_(pa.struct(_SPAN)))])
    return pa.schema(_SPAN)


def _span_record(answer: Any, values: Values) -> Values:
    answers = answer if isinstance(answer, list) else [answer]
    return {**(answers[0] if answers else {}), "answers": answers}


QUESTION_ANSWERING = PipelineTask(
    name="question-answering",
    adds="answer, score, start, end; with top_k other than 1 answers: a list of structs of those",
    inputs=(_QUESTION, Column(name="context", kind="text"), _TOP_K),
    parameters={
        "question": Parameter(None, "str|null"),
        "top_k": Parameter(1, "int"),
        "topk": Parameter(None, "int|null"),
        "doc_stride": Parameter(128, "int"),
        "max_answer_len": Parameter(15, "int"),
        "max_seq_len": Parameter(384, "int"),
        "max_question_len": Parameter(64, "int"),
        "handle_impossible_answer": Parameter(False, "bool"),
        "align_to_words": Parameter(True, "bool"),
        "padding": Parameter("do_not_pad", "bool|str|null"),
    },
    results=_spans,
    record=_span_record,
    ours=("question",),
    token_outputs=("start_logits", "end_logits"),
)


def _document(values: Values, pipeline: Any) -> Values:
    inputs = {"image": values.get("image"), "question": values["question"]}
    if "words" in values:
        if len(values["words"]) != len(values.get("boxes", [])):
            raise ValueError("words and boxes must be lists of one length")
        inputs["word_boxes"] = list(zip(values["words"], values["boxes"], strict=True))
    return inputs


DOCUMENT_QUESTION_ANSWERING = PipelineTask(
    name="document-question-answering",
    adds="answer, score, start, end; with top_k other than 1 answers: a list of structs of those",
    inputs=(
        _IMAGE,
        _QUESTION,
        Column(name="words", kind="words", required=False),
        Column(name="boxes", kind="boxes", required=False),
        _TOP_K,
    ),
    parameters={
        "question": Parameter(None, "str|null"),
        "top_k": Parameter(1, "int"),
        "doc_stride": Parameter(None, "int|null"),
        "max_answer_len": Parameter(15, "int"),
        "max_seq_len": Parameter(None, "int|null"),
        "max_question_len": Parameter(None, "int|null"),
        "handle_impossible_answer": Parameter(False, "bool"),
        "padding": Parameter("do_not_pad", "bool|str"),
        "lang": Parameter(None, "str|null"),
        "tesseract_config": Parameter("", "str"),
    },
    results=_spans,
    record=_span_record,
    prepare=_document,
    ours=("question",),
)


def _choices(loaded: Loaded) -> pa.Schema:
    if _ranks(loaded, 5):
        return pa.schema([("answers", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])
    return pa.schema([("answer", pa.string()), ("score", pa.float32())])


def _choice_record(answer: Any, values: Values) -> Values:
    answers = [one["answer"] for one in answer]
    scores = [one.get("score") for one in answer]
    return {"answers": answers, "scores": scores, "answer": answers[0], "score": scores[0]}


VISUAL_QUESTION_ANSWERING = PipelineTask(
    name="visual-question-answering",
    adds="answers, scores: lists, best first; with top_k 1 answer, score",
    inputs=(_IMAGE, _QUESTION, _TOP_K),
    parameters={
        "question": Parameter(None, "str|null"),
        "top_k": Parameter(5, "int"),
        "padding": Parameter(False, "bool|str|null"),
        "truncation": Parameter(False, "bool|str|null"),
    },
    results=_choices,
    record=_choice_record,
    ours=("question",),
    stacks=False,
)


def _cells(answer: Any, values: Values) -> Values:
    return {
        "answer": answer["answer"],
        "coordinates": answer.get("coordinates"),
        "cells": answer.get("cells"),
        "aggregator": answer.get("aggregator"),
    }


TABLE_QUESTION_ANSWERING = PipelineTask(
    name="table-question-answering",
    wants_float32=True,
    adds="answer, coordinates, cells, aggregator",
    inputs=(Column(name="query", kind="text", parameter=True), Column(name="table", kind="table")),
    parameters={
        "query": Parameter(None, "str|null"),
        "sequential": Parameter(False, "bool"),
        "padding": Parameter(True, "bool|str"),
        "truncation": Parameter(None, "bool|str|null"),
    },
    results=fixed(
        answer=pa.string(),
        coordinates=pa.list_(pa.list_(pa.int32())),
        cells=pa.list_(pa.string()),
        aggregator=pa.string(),
    ),
    record=_cells,
    ours=("query",),
    stacks=False,
)


def _request(values: Values, pipeline: Any) -> Any:
    request = _from_json(values.get("request"))
    if request is None:
        if "state" not in values:
            raise ValueError("the row has neither a request nor a state")
        if values.get("questions") is None:
            raise ValueError("a state needs questions: a column, or parameters.questions")
        questions = _from_json(values["questions"])
        request = {"state": values["state"], "questions": questions}
    if isinstance(request, dict) and request.get("assets"):
        assets = {name: _asset(name, given) for name, given in request["assets"].items()}
        request = {**request, "assets": assets}
    return request


def _asset(name: str, given: Any) -> Any:
    """The image itself: transformers would read a path or URL from anywhere."""
    from .media import image, require

    if not (isinstance(given, dict) and isinstance(given.get("data_base64"), str)):
        raise ValueError(f"the asset {name!r} must hold its image: {{data_base64: …}}")
    require("image")
    return image(base64.b64decode(given["data_base64"], validate=True))


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


DECISION = PipelineTask(
    name="decision",
    inputs=(
        Column(name="request", kind="any", required=False),
        Column(name="state", kind="any", required=False),
        Column(name="questions", kind="any", required=False, parameter=True),
    ),
    one_of=("request", "state"),
    parameters={"questions": Parameter(None, "dict|null")},
    prepare=_request,
    ours=("questions",),
    stacks=False,
)
