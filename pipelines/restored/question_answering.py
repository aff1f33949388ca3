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
    answers do not depend on the padding of a batch.
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
        self.input_names = list_input_names(self.tokenizer, self.model)
        # A cache of keys and values would never be read.
        takes_cache = "use_cache" in inspect.signature(self.model.forward).parameters
        self._options = {"use_cache": False} if takes_cache else {}

    @staticmethod
    def create_sample(question: Any, context: Any) -> Any:
        """Return an example as a call takes it, or a list of examples for lists."""
        return to_example({"question": question, "context": context})

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Answer questions.

        Args:
            args: a dictionary with the keys question and context, a list or a generator of them.
            named: `question` and `context`: two strings, two lists of equal length, or a list of
                questions and one context; and these parameters:
                top_k: how many answers to give (1); there are fewer if the context has fewer.
                doc_stride: tokens that neighbouring windows share (half of max_seq_len, at most
                128).
                max_answer_len: the most tokens of an answer (15).
                max_seq_len: the most tokens of a window, question included (the model's, at most
                384).
                max_question_len: the most tokens of a question (64). Only slow tokenizers cut it.
                handle_impossible_answer: whether "" may be an answer (False).
                align_to_words: whether to widen an answer to whole words (True). Switch it off
                for languages that do not separate words by spaces.
                padding: the tokenizer's.

        Raises:
            KeyError: for a missing question or context.
            ValueError: for one that is None or empty.
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
        parameters = {name: value for name, value in named.items() if value is not None}
        if topk is not None and "top_k" not in parameters:
            warnings.warn("topk is deprecated: give top_k", UserWarning, 2)
            parameters["top_k"] = topk
        for name in ("top_k", "max_answer_len"):
            if parameters.get(name, 1) < 1:
                raise ValueError(f"{name} parameter should be >= 1 (got {parameters[name]})")
        before = {name: parameters[name] for name in _BEFORE if name in parameters}
        self.choose_lengths(parameters.get("doc_stride"), parameters.get("max_seq_len"))
        return before, {}, {name: parameters[name] for name in _AFTER if name in parameters}

    def preprocess(
        self,
        example: Any,
        padding: Any = "do_not_pad",
        doc_stride: int | None = None,
        max_question_len: int = 64,
        max_seq_len: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the windows of a context, each as a chunk: tensors, and what postprocess reads.

        Only the first carries the context's text: a long one would be copied for each window.
        """
        example = to_example(example)
        question, context = example.question_text, example.context_text
        length, stride = self.choose_lengths(doc_stride, max_seq_len)
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
            tensors = {name: torch.tensor([inputs[name]]) for name in self.input_names}
            yield {**tensors, "is_last": upcoming is None, "window": window, "context": text}
            text = None

    def choose_lengths(self, doc_stride: int | None, max_seq_len: int | None) -> tuple[int, int]:
        """Return the most tokens of a window, and how many of them two windows share.

        Raises:
            ValueError: for a stride that is negative or longer than a window.
        """
        length = min(self.tokenizer.model_max_length, 384) if max_seq_len is None else max_seq_len
        stride = min(length // 2, 128) if doc_stride is None else doc_stride
        if stride > length:
            raise ValueError(f"`doc_stride` ({stride}) is larger than `max_seq_len` ({length})")
        if stride < 0:
            raise ValueError(f"`doc_stride` must be a number of tokens from 0 on, not {stride}")
        return length, stride

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.model(**{name: inputs[name] for name in self.input_names}, **self._options)
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
        """Return the best answers of a row, from the logits of its windows in their order."""
        context = windows[0]["context"]
        # Find more spans than answers: several may become the same words.
        count = top_k * 2 + 10 if align_to_words else top_k
        answers: list[dict[str, Any]] = []
        no_answer = 1_000_000.0
        for output in windows:
            window: Window = output["window"]
            start = compute_probabilities(window.unpadded(output["start"]), window.allowed)
            end = compute_probabilities(window.unpadded(output["end"]), window.allowed)
            no_answer = min(no_answer, float(start[0] * end[0]))
            start[0] = end[0] = 0
            firsts, lasts, scores = find_best_spans(
                start, end, window.allowed, count, max_answer_len
            )
            begins, ends = window.locate(firsts, lasts, align_to_words)
            answers += _to_answers(context, begins, ends, scores, self.tokenizer.is_fast)
        if self.tokenizer.is_fast:
            answers = _merge_answers(answers)
        if handle_impossible_answer:
            answers.append({"score": no_answer, "start": 0, "end": 0, "answer": ""})
        answers = sorted(answers, key=lambda answer: answer["score"], reverse=True)[:top_k]
        return answers[0] if len(answers) == 1 else answers


def _to_answers(
    context: str, begins: Any, ends: Any, scores: Any, characters: bool
) -> list[dict[str, Any]]:
    """Convert spans of characters to answers.

    characters: whether the tokenizer reports characters. If not, a span ends at its last character
        instead of after it, and spaces between words are made single.
    """
    answers = []
    for begin, end, score in zip(begins.tolist(), ends.tolist(), scores.tolist(), strict=True):
        if characters:
            answer = context[begin:end]
        elif min(begin, end) < 0:  # a token that stands for "no answer"
            continue
        else:
            answer = " ".join(_SPACE.split(context[begin : end + 1].strip(" \t\r\n\u202f")))
        answers.append({"score": score, "start": begin, "end": end, "answer": answer})
    return answers


def _merge_answers(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge answers that differ in case at most: keep the first, with the sum of their scores."""
    merged: dict[str, dict[str, Any]] = {}
    for answer in answers:
        same = merged.setdefault(answer["answer"].lower(), answer)
        if same is not answer:
            same["score"] += answer["score"]
    return list(merged.values())
