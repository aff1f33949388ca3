"""image-feature-extraction: one vector for an image, or one for each of its patches."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from ..embeddings.pooling import POOLINGS, pool
from ..pipeline_task import PipelineTask, Values
from .shared_parameters import sample_image


def _find_width(loaded: Loaded) -> int | None:
    """Return the width of the model's vectors; None if its configuration does not say."""
    config = loaded.pipeline.model.config
    width = getattr(config, "hidden_size", None)
    return width or (getattr(config, "hidden_sizes", None) or [None])[-1]


def _make_schema(loaded: Loaded) -> pa.Schema:
    pools = loaded.parameters.get("pool") or loaded.parameters.get("pooling", "mean") != "none"
    if not pools:
        return pa.schema([("embedding", pa.list_(pa.list_(pa.float32())))])
    width = _find_width(loaded)
    vector = pa.list_(pa.float32(), width) if width else pa.list_(pa.float32())
    return pa.schema([("embedding", vector)])


def _to_embedding(answer: Any, values: Values) -> Values:
    states = answer[0].float().cpu().numpy()
    if states.ndim == 3:  # a convolutional network's: (width, height, columns)
        states = states.reshape(len(states), -1).T
    if values.get("pool"):  # the model's own pooling
        pooling, states = "cls", states.reshape(1, -1)
    else:
        pooling = values.get("pooling", "mean")
    vector = pool(states, pooling, bool(values.get("normalize")))
    return {"embedding": list(vector) if pooling == "none" else vector}


def _check_one_pooling(values: Values) -> None:
    if values["pool"] and values["pooling"] != "mean":
        raise ValueError(
            f"pool is true, which takes the model's own pooling, and pooling is "
            f"{values['pooling']}: leave one out"
        )


IMAGE_FEATURE_EXTRACTION = PipelineTask(
    name="image-feature-extraction",
    adds="embedding: a fixed-size list of float32; with pooling none one for each patch",
    inputs=(Column(name="image", kind="image"),),
    parameters={
        "pool": Parameter(None, "bool|null"),
        "pooling": Parameter("mean", "str", POOLINGS),
        "normalize": Parameter(False, "bool"),
        "image_processor_kwargs": Parameter(None, "dict|null"),
    },
    results=_make_schema,
    record=_to_embedding,
    own_parameters=("pooling", "normalize"),
    defaults={"return_tensors": True},
    checks=_check_one_pooling,
    sample=sample_image,
)
