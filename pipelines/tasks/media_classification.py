"""Tasks that rank labels for an image, a video or audio."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Parameter

from ..pipeline_task import PipelineTask, Values, fixed
from ..text.candidate_labels import CANDIDATE_LABELS, check_candidate_labels
from . import shared_parameters

_FUNCTION = Parameter(None, "str|null", (None, "softmax", "sigmoid", "none"))
_LABELS = Column(name="candidate_labels", kind="labels", parameter=True)
_TEMPLATE = Column(name="hypothesis_template", kind="text", required=False, parameter=True)
_RESULTS = fixed(labels=pa.list_(pa.string()), scores=pa.list_(pa.float32()))


def to_ranked_labels(answer: Any, values: Values) -> Values:
    """Convert transformers' list of {label, score}, best first, to two columns."""
    return {"labels": [a["label"] for a in answer], "scores": [a["score"] for a in answer]}


def rank_labels(pipeline: Any, output: Any, **keywords: Any) -> list[dict[str, Any]]:
    """Return what the pipeline's `postprocess` returns for an image, of the best labels only.

    That makes a dictionary for each label, and sorts all: for 1,000 labels some milliseconds.
    """
    import numpy as np
    from transformers.pipelines.image_classification import sigmoid, softmax

    config, logits = pipeline.model.config, output["logits"][0].numpy()
    function, top_k = keywords.get("function_to_apply"), keywords.get("top_k", 5)
    ways: dict[Any, Any] = {"sigmoid": sigmoid, "softmax": softmax}
    if function is None and config.problem_type != "regression":
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        function = "sigmoid" if several else "softmax"
    scores = ways.get(function, np.asarray)(logits)
    if np.isnan(scores).any():  # they have no order
        return pipeline.postprocess(output, **keywords)
    best, names = np.argsort(-scores, kind="stable")[:top_k].tolist(), config.id2label
    return [{"label": names[i], "score": scores[i].item()} for i in best]


def _make_parameters(template: str) -> dict[str, Parameter]:
    return {
        "candidate_labels": CANDIDATE_LABELS,
        "hypothesis_template": Parameter(template, "str"),
    }


AUDIO_CLASSIFICATION = PipelineTask(
    name="audio-classification",
    adds="labels, scores: lists, best first",
    inputs=(Column(name="audio", kind="audio"), shared_parameters.TOP_K),
    parameters={"top_k": shared_parameters.count(None), "function_to_apply": _FUNCTION},
    results=_RESULTS,
    record=to_ranked_labels,
)

IMAGE_CLASSIFICATION = PipelineTask(
    name="image-classification",
    adds="labels, scores: lists, best first",
    inputs=(Column(name="image", kind="image"), shared_parameters.TOP_K),
    parameters={"top_k": Parameter(5, "int"), "function_to_apply": _FUNCTION},
    results=_RESULTS,
    record=to_ranked_labels,
    postprocess=rank_labels,
)

VIDEO_CLASSIFICATION = PipelineTask(
    name="video-classification",
    adds="labels, scores: lists, best first",
    inputs=(Column(name="video", kind="video"), shared_parameters.TOP_K),
    parameters={
        "top_k": shared_parameters.count(5),
        "num_frames": shared_parameters.count(None, least=1),
        "frame_sampling_rate": shared_parameters.count(1, least=1),
        "function_to_apply": _FUNCTION,
    },
    results=_RESULTS,
    record=to_ranked_labels,
)

ZERO_SHOT_AUDIO_CLASSIFICATION = PipelineTask(
    name="zero-shot-audio-classification",
    adds="labels, scores: lists, best first",
    inputs=(Column(name="audio", kind="audio"), _LABELS, _TEMPLATE),
    parameters=_make_parameters("This is a sound of {}."),
    results=_RESULTS,
    record=to_ranked_labels,
    checks=check_candidate_labels,
)

ZERO_SHOT_IMAGE_CLASSIFICATION = PipelineTask(
    name="zero-shot-image-classification",
    adds="labels, scores: lists, best first",
    inputs=(Column(name="image", kind="image"), _LABELS, _TEMPLATE),
    parameters={
        **_make_parameters("This is a photo of {}."),
        "tokenizer_kwargs": Parameter(None, "dict|null"),
    },
    results=_RESULTS,
    record=to_ranked_labels,
    checks=check_candidate_labels,
)
