"""image-feature-extraction: an image as one vector, or as one for each of its patches."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from .declared import PipelineTask, Values

_POOLINGS = ("mean", "cls", "last", "max", "none")


def _width(loaded: Loaded) -> int | None:
    """Of the model's vectors; None where its configuration does not say."""
    config = loaded.pipeline.model.config
    width = getattr(config, "hidden_size", None)
    return width or (getattr(config, "hidden_sizes", None) or [None])[-1]


def _results(loaded: Loaded) -> pa.Schema:
    pooled = loaded.parameters.get("pool") or loaded.parameters.get("pooling", "mean") != "none"
    if not pooled:
        return pa.schema([("embedding", pa.list_(pa.list_(pa.float32())))])
    width = _width(loaded)
    kind = pa.list_(pa.float32(), width) if width else pa.list_(pa.float32())
    return pa.schema([("embedding", kind)])


def _record(answer: Any, values: Values) -> Values:
    import numpy as np

    states = answer[0].float().cpu().numpy()
    if states.ndim == 3:  # of a convolutional network: (width, height, columns)
        states = states.reshape(len(states), -1).T
    pooling = values.get("pooling", "mean")
    if values.get("pool"):
        vector = states.reshape(-1)
    elif pooling == "none":
        return {"embedding": list(states)}
    else:
        vector = {
            "mean": lambda: states.mean(axis=0),
            "max": lambda: states.max(axis=0),
            "cls": lambda: states[0],
            "last": lambda: states[-1],
        }[pooling]()
    if values.get("normalize"):
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return {"embedding": vector}


IMAGE_FEATURE_EXTRACTION = PipelineTask(
    name="image-feature-extraction",
    adds="embedding: a fixed-size list of float32; with pooling none one for each patch",
    inputs=(Column(name="image", kind="image"),),
    parameters={
        "pool": Parameter(None, "bool|null"),
        "pooling": Parameter("mean", "str", _POOLINGS),
        "normalize": Parameter(False, "bool"),
        "image_processor_kwargs": Parameter(None, "dict|null"),
    },
    results=_results,
    record=_record,
    ours=("pooling", "normalize"),
    defaults={"return_tensors": True},
)
