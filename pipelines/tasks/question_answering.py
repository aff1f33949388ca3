"""Tasks that answer a question about a text, a table, an image or a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from ..pipeline_task import PipelineTask, Values, fixed
from . import shared_parameters

if TYPE_CHECKING:
    from ..engines.base import GenerationEngine

_IMAGE = Column(name="image", kind="image")
_QUESTION = Column(name="question", kind="text", parameter=True)
_TOP_K = Column(name="top_k", kind="number", required=False, parameter=True)
_SPAN = [
    ("answer", pa.string()),
    ("score", pa.float32()),
    ("start", pa.int32()),
    ("end", pa.int32()),
]


def _returns_list(loaded: Loaded, default: int) -> bool:
    """Return whether a row has a list of answers."""
    top_k = loaded.parameters.get("top_k", loaded.parameters.get("topk", default))
    return "top_k" in loaded.columns or top_k != 1


def _make_span_schema(loaded: Loaded) -> pa.Schema:
    if _returns_list(loaded, 1):
        return pa.schema([("answers", pa.list_(pa.struct(_SPAN)))])
    return pa.schema(_SPAN)


def _to_spans(answer: Any, values: Values) -> Values:
    answers = answer if isinstance(answer, list) else [answer]
    return {**(answers[0] if answers else {}), "answers": answers}


def _check_windows_advance(values: Values) -> None:
    length, stride = values["max_seq_len"], values["doc_stride"]
    # A default stride is made smaller to fit shorter windows.
    if length is not None and stride not in (None, 128) and stride >= length:
        raise ValueError(
            f"doc_stride ({stride}), which two windows share, must be less than max_seq_len "
            f"({length}), the tokens of a window"
        )


def _check_windows_hold_tokens(values: Values, pipeline: Any) -> None:
    special = pipeline.tokenizer.num_special_tokens_to_add(pair=True)
    length = values["max_seq_len"]
    if length is not None and length <= special:
        raise ValueError(
            f"max_seq_len ({length}) must be more than the {special} special tokens of a window"
        )


def _make_generation(pipeline: Any) -> GenerationEngine | None:
    """Return what writes the answers about several documents, for a model that writes them."""
    if not pipeline.model.can_generate():
        return None
    # Here: the driver imports this module without torch.
    from ..engines.generation.batched_generation import BatchedGeneration

    return BatchedGeneration(pipeline, "sequences")


QUESTION_ANSWERING = PipelineTask(
    name="question-answering",
    adds="answer, score, start, end; with top_k other than 1 answers: a list of structs of those",
    inputs=(_QUESTION, Column(name="context", kind="text"), _TOP_K),
    parameters={
        "question": Parameter(None, "str|null"),
        "top_k": shared_parameters.count(1, least=1),
        "topk": shared_parameters.count(None, least=1),
        "doc_stride": shared_parameters.count(128),
        "max_answer_len": shared_parameters.count(15, least=1),
        "max_seq_len": shared_parameters.count(384, least=1),
        "max_question_len": shared_parameters.count(64, least=1),
        "handle_impossible_answer": Parameter(False, "bool"),
        "align_to_words": Parameter(True, "bool"),
        "padding": shared_parameters.padding("do_not_pad"),
    },
    results=_make_span_schema,
    record=_to_spans,
    own_parameters=("question",),
    token_outputs=("start_logits", "end_logits"),
    checks=_check_windows_advance,
    suits=_check_windows_hold_tokens,
    sample=lambda pipeline, given: {"question": "a", "context": "a"},
)


def _prepare_document(values: Values, pipeline: Any) -> Values:
    """Return the image, question and words of a row as the pipeline takes them."""
    inputs = {"image": values.get("image"), "question": values["question"]}
    needs_image = pipeline.model_type.name == "VisionEncoderDecoder"  # Donut reads no words
    if "image" not in values and (needs_image or "words" not in values):
        instead = "" if needs_image else ", and no words with their boxes"
        raise ValueError(f"the row has no image{instead}")
    if "words" in values:
        if len(values["words"]) != len(values.get("boxes", [])):
            raise ValueError(
                "words and boxes must be lists of one length: "
                f"they have {len(values['words'])} and {len(values.get('boxes', []))} items"
            )
        boxes = [_check_box(box) for box in values["boxes"]]
        inputs["word_boxes"] = list(zip(values["words"], boxes, strict=True))
    return inputs


def _check_box(box: list[float | None] | None) -> list[int]:
    """Return a box in whole numbers, which a model looks up in a table; raise for another one."""
    whole = [int(side) for side in box or () if side is not None and float(side).is_integer()]
    if len(box or ()) != 4 or len(whole) != 4:
        raise ValueError(f"a box is four whole numbers (0 to 1000), not {box}")
    return whole


DOCUMENT_QUESTION_ANSWERING = PipelineTask(
    name="document-question-answering",
    adds="answer, score, start, end; with top_k other than 1 answers: a list of structs of those",
    inputs=(
        Column(name="image", kind="image", required=False),
        _QUESTION,
        Column(name="words", kind="words", required=False),
        Column(name="boxes", kind="boxes", required=False),
        _TOP_K,
    ),
    parameters={
        "question": Parameter(None, "str|null"),
        "top_k": shared_parameters.count(1, least=1),
        "doc_stride": shared_parameters.count(None),
        "max_answer_len": shared_parameters.count(15, least=1),
        "max_seq_len": shared_parameters.count(None, least=1),
        "max_question_len": shared_parameters.count(None, least=1),
        "handle_impossible_answer": Parameter(False, "bool"),
        "padding": shared_parameters.padding("do_not_pad", null=False),
        "lang": Parameter(None, "str|null"),
        "tesseract_config": Parameter("", "str"),
    },
    results=_make_span_schema,
    record=_to_spans,
    prepare=_prepare_document,
    one_of=("image", "words"),
    own_parameters=("question",),
    checks=_check_windows_advance,
    suits=_check_windows_hold_tokens,
    generation=_make_generation,
)


def _make_choice_schema(loaded: Loaded) -> pa.Schema:
    if _returns_list(loaded, 5):
        return pa.schema([("answers", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])
    return pa.schema([("answer", pa.string()), ("score", pa.float32())])


def _to_choices(answer: Any, values: Values) -> Values:
    answers = [choice["answer"] for choice in answer]
    scores = [choice.get("score") for choice in answer]
    best = {"answer": answers[0], "score": scores[0]} if answers else {}  # none if top_k is 0
    return {"answers": answers, "scores": scores, **best}


VISUAL_QUESTION_ANSWERING = PipelineTask(
    name="visual-question-answering",
    adds="answers, scores: lists, best first; with top_k 1 answer, score",
    inputs=(_IMAGE, _QUESTION, _TOP_K),
    parameters={
        "question": Parameter(None, "str|null"),
        "top_k": shared_parameters.count(5),
        "padding": shared_parameters.padding(False),
        "truncation": shared_parameters.truncation(False),
    },
    results=_make_choice_schema,
    record=_to_choices,
    own_parameters=("question",),
)


# TAPAS drops rows of its table; other models truncate the table as a text.
_TRUNCATIONS = shared_parameters.truncation(None).choices


def _to_cells(answer: Any, values: Values) -> Values:
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
        "padding": shared_parameters.padding(True, null=False),
        "truncation": Parameter(None, "bool|str|null", (*_TRUNCATIONS, "drop_rows_to_fit")),
    },
    results=fixed(
        answer=pa.string(),
        coordinates=pa.list_(pa.list_(pa.int32())),
        cells=pa.list_(pa.string()),
        aggregator=pa.string(),
    ),
    record=_to_cells,
    own_parameters=("query",),
    batchable=False,
)
