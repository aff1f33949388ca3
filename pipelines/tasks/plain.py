"""The text tasks with an engine of pipemill's, declared over a plain `transformers.Pipeline`.

A job with a user's pipeline takes these, so that what that pipeline overrides has its effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ..pipeline_task import PipelineTask, Values, fixed
from ..text import windows
from .feature_extraction import FeatureExtraction, merge_tokenize_kwargs
from .text_classification import TextClassification
from .zero_shot_classification import ZeroShotClassification


def _to_ranked_labels(answer: Any, values: Values) -> Values:
    # Without top_k, transformers returns a dict for one label; with top_k a list.
    answers = [answer] if isinstance(answer, dict) else answer
    labels, scores = [a["label"] for a in answers], [float(a["score"]) for a in answers]
    if values.get("top_k", 1) == 1 and len(answers) > 1:
        raise ValueError(f"the pipeline returned {len(answers)} labels for top_k 1")
    return {"label": labels[0], "score": scores[0], "labels": labels, "scores": scores}


def _make_label_schema(loaded: Any) -> pa.Schema:
    if loaded.parameters.get("top_k", 1) == 1:
        return pa.schema([("label", pa.string()), ("score", pa.float32())])
    return pa.schema([("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])


def _unwrap_vectors(answer: list[Any]) -> list[list[float]]:
    """Return one vector per token; a model that pools, like DPR, has one in all."""
    return answer[0] if isinstance(answer[0][0], list) else answer


def _prepare_text_or_pair(values: Values, pipeline: Any) -> Any:
    return values if "text_pair" in values else values["text"]


# Parameters that pipemill adds to transformers', or gives another meaning.
_OURS = {"window_pooling", "pooling", "normalize", "truncation", "max_length", "stride", "padding"}


def to_plain_parameters(
    task: str, given: Mapping[str, Any], cut: Mapping[str, Any]
) -> dict[str, Any]:
    """Convert the parameters of one of these tasks to those that transformers takes.

    Args:
        task: the task's name.
        given: the parameters of the job.
        cut: the tokenizer's `truncation` and `max_length`, where texts are truncated.
    """
    if task == "feature-extraction":
        flat = merge_tokenize_kwargs(given)
        kept = {n: v for n, v in flat.items() if n in windows.PARAMETERS.keys() - _OURS}
        return {"tokenize_kwargs": {**kept, **cut}}
    return {**{n: v for n, v in given.items() if n not in _OURS}, **cut}


PLAIN_TASKS = {
    "text-classification": PipelineTask(
        name="text-classification",
        inputs=TextClassification.inputs[:2],
        results=_make_label_schema,
        record=_to_ranked_labels,
        prepare=_prepare_text_or_pair,
    ),
    "zero-shot-classification": PipelineTask(
        name="zero-shot-classification",
        inputs=ZeroShotClassification.inputs,
        results=fixed(labels=pa.list_(pa.string()), scores=pa.list_(pa.float32())),
        record=lambda answer, values: answer,
    ),
    "feature-extraction": PipelineTask(
        name="feature-extraction",
        inputs=FeatureExtraction.inputs,
        results=fixed(embedding=pa.list_(pa.list_(pa.float32()))),
        record=lambda answer, values: {"embedding": _unwrap_vectors(answer)},
    ),
}
