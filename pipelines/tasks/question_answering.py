"""Tasks that answer a question about a text, a table, an image or a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import make_lists
from pipemill.actors.faults.bisect import forget_call
from pipemill.actors.faults.watchdog import mark_progress
from pipemill.actors.task import Column, Loaded, Parameter

from ..adapter.token_columns import TokenColumns, knows_pipeline
from ..engines.stacking import copy_kwargs
from ..pipeline_task import PipelineTask, Values, fixed
from ..text import model_limits
from ..text.token_chunks import build_from_stream, to_matrix
from ..text.windows import split_by_size
from . import shared_parameters

if TYPE_CHECKING:
    from ..adapter.pipeline_adapter import PipelineAdapter
    from ..engines.base import GenerationEngine

_IMAGE = Column(name="image", kind="image")
_QUESTION = Column(name="question", kind="text", parameter=True)
_PAIR = ("question", "context")
# Fields of chunks: the characters of each token, and of its word.
_PLACES = ("starts", "ends", "word_starts", "word_ends")
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


class QuestionAnswering(TokenColumns):
    """question-answering of many questions at a time: windows as columns of tokens."""

    kept = _PLACES

    def __init__(self, adapter: PipelineAdapter) -> None:
        super().__init__(adapter)
        before, _, _ = adapter.keywords.of("{}")
        lengths = before.get("doc_stride"), before.get("max_seq_len")
        self.length, self.stride = self.pipeline.choose_lengths(*lengths)
        self.equal_sizes = model_limits.needs_equal_sizes(self.pipeline)

    @classmethod
    def make(cls, adapter: PipelineAdapter) -> QuestionAnswering | None:
        """Return the task, if it is known what the pipeline does with a context."""
        from ..restored.question_answering import QuestionAnsweringPipeline

        knows = knows_pipeline(adapter, QuestionAnsweringPipeline)
        right = knows and adapter.pipeline.tokenizer.padding_side == "right"
        return cls(adapter) if right and set(adapter.loaded.columns) == set(_PAIR) else None

    def expand_each(self, rows: pa.Table) -> tuple[pa.ListArray, dict[int, BaseException]]:
        """Return the windows of contexts that can be cut, and the errors of the others."""
        pairs = rows.select(_PAIR).to_pylist()
        failed = self._find_failures(pairs)
        pairs = [pair for i, pair in enumerate(pairs) if i not in failed]
        if not pairs:
            return pa.array([], pa.list_(pa.struct([]))), failed
        parts = split_by_size([len(pair["context"]) for pair in pairs])
        lists = pa.concat_arrays([self._cut(pairs[part]) for part in parts])
        lists, long = self.leave_out_long(lists)
        places = np.setdiff1d(np.arange(rows.num_rows), list(failed))
        return lists, failed | {int(places[i]): error for i, error in long.items()}

    def _find_failures(self, pairs: list[Values]) -> dict[int, BaseException]:
        """Return the errors of rows without a question or context, or room for it, by position."""
        from ..restored.context_windows import find_lack_of_room
        from ..restored.question_arguments import to_example

        tokenizer, failed = self.pipeline.tokenizer, {}
        questions = list(dict.fromkeys(pair["question"] for pair in pairs))
        ids = tokenizer(questions, add_special_tokens=False, return_attention_mask=False)
        counts = dict(zip(questions, map(len, ids["input_ids"]), strict=True))
        shortest = self.length - self.stride - tokenizer.num_special_tokens_to_add(True)
        for i, pair in enumerate(pairs):
            error: BaseException | None = None
            try:
                to_example(pair)
            except ValueError as found:
                error = forget_call(found)
            count = counts[pair["question"]]
            if error is None and count >= shortest:
                given = count, pair["context"], self.stride, self.length
                error = find_lack_of_room(tokenizer, *given)
            if error is not None:
                failed[i] = error
        return failed

    def _cut(self, pairs: list[Values]) -> pa.ListArray:
        from ..restored.context_windows import make_window_columns

        mark_progress()
        questions, contexts = ([pair[name] for pair in pairs] for name in _PAIR)
        found = make_window_columns(
            self.pipeline.tokenizer, questions, contexts, self.stride, self.length
        )
        names = (*self.pipeline.input_names, *self.kept)
        columns = {name: found.columns[name] for name in found.columns if name in names}
        lost = np.zeros(len(found.lengths), np.int32)
        chunks = build_from_stream(columns, found.lengths, self.equal_sizes, lost)
        return make_lists(chunks, found.counts)

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        import torch

        from ..restored.context_windows import Window

        chunks, contexts = outputs.flatten(), rows["context"].to_pylist()
        places = [chunks.field(name).flatten().to_numpy() for name in self.kept]
        characters, words = np.stack(places[:2], axis=1), np.stack(places[2:], axis=1)
        logits = torch.from_numpy(to_matrix(chunks.field("logits").flatten()).T.copy())
        ends = np.cumsum(pc.list_value_length(chunks.field("starts")).to_numpy()).tolist()
        windows, begin = [], 0
        for end in ends:
            own = slice(begin, end)
            allowed = characters[own, 0] >= 0
            window = Window(allowed, characters[own], words[own], padded_left=False)
            windows.append({"window": window, "start": logits[:1, own], "end": logits[1:, own]})
            begin = end
        answers, first = [], 0
        for context, count in zip(contexts, pc.list_value_length(outputs).to_pylist(), strict=True):
            own_windows, first = windows[first : first + count], first + count
            own_windows[0]["context"] = context
            answers.append(self.pipeline.postprocess(own_windows, **copy_kwargs(self.keywords)))
            mark_progress()
        return self.adapter.tabulate(rows, answers)


QUESTION_ANSWERING = PipelineTask(
    name="question-answering",
    adds="answer, score, start, end; with top_k other than 1 answers: a list of structs of those",
    inputs=(_QUESTION, Column(name="context", kind="text"), shared_parameters.TOP_K),
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
    speed_up=QuestionAnswering.make,
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
        shared_parameters.TOP_K,
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
    inputs=(_IMAGE, _QUESTION, shared_parameters.TOP_K),
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
