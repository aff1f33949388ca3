"""question-answering: the span of a context that answers a question, as in transformers 4.57."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
from transformers.pipelines.base import ChunkPipeline

from .answer_spans import compute_probabilities, find_best_spans
from .context_windows import Window, make_fast_windows, make_slow_windows
from .question_arguments import read_call, to_example
from .token_type_ids import list_input_names

_SPACE = re.compile("[ \t\r\n\u202f]+")
_BEFORE = ("padding", "doc_stride", "max_question_len", "max_seq_len")
_AFTER = ("top_k", "max_answer_len", "handle_impossible_answer", "align_to_words")


class QuestionAnsweringPipeline(ChunkPipeline):
    """Extractive question answering with any `AutoModelForQuestionAnswering`.

    ```python
    pipe = transformers.pipeline("question-answering", model=folder)
    pipe(question="Where do I live?", context="My name is Wolfgang and I live in Berlin")
    ```

    One question gives `{"score", "start", "end", "answer"}`, with `top_k` > 1 a list of those;
    several questions give a list. `start` and `end` count characters of the context.

    A context that is too long for the model becomes several windows. Each is a chunk, and its
    answers do not depend on the padding that a batch adds to it.
    """

    default_input_names = "question,context"
    default_model = ("distilbert/distilbert-base-cased-distilled-squad", "564e9b5")
    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.check_model_type(MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES)
        self._inputs = list_input_names(self.tokenizer, self.model)
        # A cache of keys and values would be kept for nothing.
        takes_cache = "use_cache" in inspect.signature(self.model.forward).parameters
        self._options = {"use_cache": False} if takes_cache else {}

    @staticmethod
    def create_sample(question: Any, context: Any) -> Any:
        """An example, or a list of them where lists are given, as a call takes them."""
        return to_example({"question": question, "context": context})

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Answer questions.

        question, context: two strings; two lists of equal length; or several questions and one
            context. Dictionaries with these keys, one or a list or a generator, are taken as the
            first argument.
        top_k: how many answers to give; there are fewer where the context has no more.
        doc_stride: how many tokens neighbouring windows share (half of max_seq_len, at most 128).
        max_answer_len: the most tokens of an answer (15).
        max_seq_len: the most tokens of a window, question included (the model's, at most 384).
        max_question_len: the most tokens of a question (64); only where the tokenizer knows no
            characters, with others the question is never cut.
        handle_impossible_answer: let "" be an answer.
        align_to_words: widen an answer to whole words. Switch it off where no spaces separate them.
        padding: the tokenizer's.

        Raises KeyError and ValueError for inputs that are missing, None or empty.
        """
        if args:
            warnings.warn(
                "Positional inputs are deprecated: give question= and context=", FutureWarning, 2
            )
        examples = read_call(args, named)
        if isinstance(examples, list):
            if not examples:
                return []
            if len(examples) == 1:
                examples = examples[0]
        return super().__call__(examples, **named)

    def _sanitize_parameters(
        self, topk: int | None = None, **named: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {name: value for name, value in named.items() if value is not None}
        if topk is not None and "top_k" not in given:
            warnings.warn("topk is deprecated: give top_k", UserWarning, 2)
            given["top_k"] = topk
        for name in ("top_k", "max_answer_len"):
            if given.get(name, 1) < 1:
                raise ValueError(f"{name} parameter should be >= 1 (got {given[name]})")
        before = {name: given[name] for name in _BEFORE if name in given}
        self._stride(given.get("doc_stride"), given.get("max_seq_len"))
        return before, {}, {name: given[name] for name in _AFTER if name in given}

    def preprocess(
        self,
        example: Any,
        padding: Any = "do_not_pad",
        doc_stride: int | None = None,
        max_question_len: int = 64,
        max_seq_len: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The windows of a context, each a chunk: tensors of one row, and what postprocess reads.

        The first alone carries the context's text: a long one would be copied for each window.
        """
        example = to_example(example)
        question, context = example.question_text, example.context_text
        length, stride = self._stride(doc_stride, max_seq_len)
        windows = (
            make_fast_windows(self.tokenizer, question, context, padding, stride, length)
            if self.tokenizer.is_fast
            else make_slow_windows(
                self.tokenizer, question, context, stride, length, max_question_len
            )
        )
        upcoming = next(windows, None)
        text: str | None = context
        while upcoming is not None:
            (inputs, window), upcoming = upcoming, next(windows, None)
            tensors = {name: torch.tensor([inputs[name]]) for name in self._inputs}
            yield {**tensors, "is_last": upcoming is None, "window": window, "context": text}
            text = None

    def _stride(self, doc_stride: int | None, max_seq_len: int | None) -> tuple[int, int]:
        """The most tokens of a window, and how many of them two share. Raises ValueError."""
        length = min(self.tokenizer.model_max_length, 384) if max_seq_len is None else max_seq_len
        stride = min(length // 2, 128) if doc_stride is None else doc_stride
        if stride > length:
            raise ValueError(f"`doc_stride` ({stride}) is larger than `max_seq_len` ({length})")
        if stride < 0:
            raise ValueError(f"`doc_stride` is a number of tokens, not {stride}")
        return length, stride

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.model(**{name: inputs[name] for name in self._inputs}, **self._options)
        keys: tuple[Any, Any] = (0, 1)
        if isinstance(outputs, dict):
            keys = ("start_logits", "end_logits")
        kept = {name: inputs[name] for name in ("is_last", "window", "context")}
        return {"start": outputs[keys[0]], "end": outputs[keys[1]], **kept}

    def postprocess(
        self,
        windows: list[dict[str, Any]],
        top_k: int = 1,
        handle_impossible_answer: bool = False,
        max_answer_len: int = 15,
        align_to_words: bool = True,
    ) -> Any:
        """The best answers of a row, from the logits of its windows in their order."""
        context = windows[0]["context"]
        # Several spans may be the same words.
        count = top_k * 2 + 10 if align_to_words else top_k
        answers: list[dict[str, Any]] = []
        nothing = 1_000_000.0
        for output in windows:
            window: Window = output["window"]
            start = compute_probabilities(window.unpadded(output["start"]), window.allowed)
            end = compute_probabilities(window.unpadded(output["end"]), window.allowed)
            nothing = min(nothing, float(start[0] * end[0]))
            start[0] = end[0] = 0
            firsts, lasts, scores = find_best_spans(
                start, end, window.allowed, count, max_answer_len
            )
            begins, ends = window.locate(firsts, lasts, align_to_words)
            answers += _to_answers(context, begins, ends, scores, self.tokenizer.is_fast)
        if self.tokenizer.is_fast:
            answers = _merge_answers(answers)
        if handle_impossible_answer:
            answers.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
        answers = sorted(answers, key=lambda answer: answer["score"], reverse=True)[:top_k]
        return answers[0] if len(answers) == 1 else answers


def _to_answers(
    context: str, begins: Any, ends: Any, scores: Any, characters: bool
) -> list[dict[str, Any]]:
    """Spans as dictionaries; without `characters`, they end at the last of their characters."""
    found = []
    for begin, end, score in zip(begins.tolist(), ends.tolist(), scores.tolist(), strict=True):
        if characters:
            answer = context[begin:end]
        elif min(begin, end) < 0:  # the token that stands for "no answer"
            continue
        else:
            answer = " ".join(_SPACE.split(context[begin : end + 1].strip(" \t\r\n\u202f")))
        found.append({"score": score, "start": begin, "end": end, "answer": answer})
    return found


def _merge_answers(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers of the same words, whatever their case, as one: the first, with all their scores."""
    merged: dict[str, dict[str, Any]] = {}
    for answer in answers:
        same = merged.setdefault(answer["answer"].lower(), answer)
        if same is not answer:
            same["score"] += answer["score"]
    return list(merged.values())
