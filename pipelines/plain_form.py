"""The tasks that pipemill computes its own way, done by a plain `transformers.Pipeline`.

A job with a user's pipeline takes these, so that what that pipeline overrides has its effect; and
they are what the answers are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded

from .label_names import ONE_LABEL, RANKED_LABELS
from .pipeline_task import PipelineTask, fixed
from .task_spec import Values, check_nothing
from .text import model_limits

# Parameters that pipemill adds to transformers', or gives another meaning.
OWN_PARAMETERS = frozenset(
    "window_pooling pooling normalize truncate_dim truncation max_length stride padding".split()
)


@dataclass(frozen=True, kw_only=True)
class PlainForm:
    """How plain transformers does a task that pipemill computes its own way.

    Attributes:
        declared: the task over the pipeline as it is.
        batch_parameters: returns the pipeline's parameters for texts in batches. Texts that are
            longer than the model are truncated there: the pipeline would raise for them.
        prompt: returns the text that is put before every text.
    """

    declared: PipelineTask
    batch_parameters: Callable[[Loaded], Values]
    prompt: Callable[[Loaded], str] = lambda loaded: ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How plain transformers computes one row of a loaded task, to compare the answers.

    Attributes:
        parameters: those of the pipeline.
        prompt: the text that is put before every text.
        can_answer: returns for a table of the task's columns whether transformers computes the one
            row in it as pipemill does.
        prepare: changes the pipeline as the task changes its own.
        record: from the result columns of transformers to those of the task.
    """

    parameters: Values
    prompt: str = ""
    can_answer: Callable[[pa.Table], bool] = lambda row: True
    prepare: Callable[[Any], None] = check_nothing
    record: Callable[[Values], Values] = dict


def to_plain_parameters(given: Mapping[str, Any]) -> Values:
    """Return the parameters that transformers knows and takes as pipemill does."""
    return {name: value for name, value in given.items() if name not in OWN_PARAMETERS}


def find_truncation(loaded: Loaded) -> Values:
    """Return the tokenizer's parameters that truncate texts to what the model takes."""
    given = {**loaded.parameters, **(loaded.parameters.get("tokenize_kwargs") or {})}
    length = given.get("max_length") or model_limits.find_max_length(loaded.pipeline)
    truncation = {"truncation": given.get("truncation") or True}
    return {**truncation, "max_length": length} if length else truncation


def plain_text_classification(inputs: tuple[Column, ...]) -> PipelineTask:
    """Declare text-classification over its pipeline."""
    return PipelineTask(
        name="text-classification",
        inputs=inputs,
        results=_choose_label_columns,
        record=_to_ranked_labels,
        prepare=_prepare_text_or_pair,
    )


def plain_zero_shot_classification(inputs: tuple[Column, ...]) -> PipelineTask:
    """Declare zero-shot-classification over its pipeline."""
    return PipelineTask(
        name="zero-shot-classification",
        inputs=inputs,
        results=lambda loaded: RANKED_LABELS,
        record=lambda answer, values: answer,
    )


def plain_feature_extraction(inputs: tuple[Column, ...]) -> PipelineTask:
    """Declare feature-extraction over its pipeline."""
    return PipelineTask(
        name="feature-extraction",
        inputs=inputs,
        results=fixed(embedding=pa.list_(pa.list_(pa.float32()))),
        record=lambda answer, values: {"embedding": _unwrap_vectors(answer)},
    )


def _to_ranked_labels(answer: Any, values: Values) -> Values:
    # Without top_k, transformers returns a dict for one label; with top_k a list.
    answers = [answer] if isinstance(answer, dict) else answer
    labels, scores = [a["label"] for a in answers], [float(a["score"]) for a in answers]
    if values.get("top_k", 1) == 1 and len(answers) > 1:
        raise ValueError(f"the pipeline returned {len(answers)} labels for top_k 1")
    return {"label": labels[0], "score": scores[0], "labels": labels, "scores": scores}


def _choose_label_columns(loaded: Loaded) -> pa.Schema:
    return ONE_LABEL if loaded.parameters.get("top_k", 1) == 1 else RANKED_LABELS


def _unwrap_vectors(answer: list[Any]) -> list[list[float]]:
    """Return one vector per token; a model that pools, like DPR, has one in all."""
    return answer[0] if isinstance(answer[0][0], list) else answer


def _prepare_text_or_pair(values: Values, pipeline: Any) -> Any:
    return values if "text_pair" in values else values["text"]
