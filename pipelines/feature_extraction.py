"""feature-extraction: a text as one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.task import Column, Loaded, Parameter

from . import text_encoder, windows

_POOLINGS = ("mean", "cls", "last", "max", "none")


class FeatureExtraction:
    """The model's last hidden state for each text, pooled to one vector.

    Adds `embedding`, a fixed-size list of float32; with `pooling: none` one list per token, as
    `transformers.FeatureExtractionPipeline` returns them. `pooling` is "mean" over all tokens,
    the first ("cls") or "last" token's vector, or the "max" of each dimension; `normalize`
    scales the vector to length 1.

    A text longer than the model is cut into windows of `max_length` tokens that overlap by
    `stride` tokens; their vectors are pooled by their number of tokens ("max" by maximum, "last"
    takes the last window, "none" puts one after the other). `truncation: true` keeps the first
    window only, and the run counts the tokens lost.
    """

    name = "feature-extraction"
    inputs = (Column(name="text", kind="text"),)
    parameters: Mapping[str, Parameter] = {
        "pooling": Parameter("mean", "str", _POOLINGS),
        "normalize": Parameter(False, "bool"),
        **windows.PARAMETERS,
    }

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        windows.check(parameters)

    def __init__(self, loaded: Loaded) -> None:
        settings, pipeline = loaded.settings(self.parameters), loaded.pipeline
        self.pipeline = pipeline
        self.pooling, self.normalize = settings["pooling"], settings["normalize"]
        limits = [text_encoder.max_length(pipeline), settings["max_length"]]
        self.cutter = windows.Cutter(
            tokenizer=pipeline.tokenizer,
            limit=min((limit for limit in limits if limit), default=None),
            stride=settings["stride"],
            truncation=settings["truncation"],
            equal_sizes=text_encoder.needs_equal_sizes(pipeline),
        )
        self.width = pipeline.model.config.get_text_config().hidden_size

    def results(self) -> pa.Schema:
        if self.pooling == "none":
            return pa.schema([("embedding", pa.list_(pa.list_(pa.float32())))])
        return pa.schema([("embedding", pa.list_(pa.float32(), self.width))])

    def expand(self, rows: pa.Table) -> pa.ListArray:
        return self.cutter.chunks(rows["text"].to_pylist())

    def forward(self, chunks: pa.StructArray) -> pa.Array:
        outputs, lengths = text_encoder.run(self.pipeline, chunks)
        states = outputs[0]
        if self.pooling == "none":
            return _token_vectors(states, lengths)
        pooled = text_encoder.vectors(_pool(states, lengths, self.pooling))
        return windows.with_sizes(pooled, lengths)

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        counts, chunks = pc.list_value_length(outputs).to_numpy(), outputs.flatten()
        if self.pooling == "none":
            tokens = np.concatenate([[0], np.cumsum(pc.list_value_length(chunks).to_numpy())])
            offsets = pa.array(tokens[np.concatenate([[0], np.cumsum(counts)])], pa.int32())
            return pa.table({"embedding": pa.ListArray.from_arrays(offsets, chunks.flatten())})
        vectors = text_encoder.matrix(chunks.field("vector"))
        rule = self.pooling if self.pooling in ("max", "last") else "mean"
        pooled = windows.pool(vectors, chunks.field("tokens").to_numpy(), counts, rule)
        if self.normalize:
            pooled = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        values = pa.array(pooled.astype(np.float32, copy=False).ravel())
        return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(values, self.width)})


def _pool(states: Any, lengths: np.ndarray, pooling: str) -> Any:
    """(chunks, tokens, width) hidden states to (chunks, width), padding left out."""
    import torch

    ends = torch.from_numpy(lengths).to(states.device)
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        return states[torch.arange(len(ends), device=states.device), ends - 1]
    here = torch.arange(states.shape[1], device=states.device) < ends[:, None]
    if pooling == "max":
        return states.masked_fill(~here[..., None], -torch.inf).amax(dim=1)
    return (states * here[..., None]).sum(dim=1) / ends[:, None]


def _token_vectors(states: Any, lengths: np.ndarray) -> pa.ListArray:
    """One list of vectors per chunk, as long as the chunk."""
    array = states.float().cpu().numpy()
    real = array[np.arange(array.shape[1]) < lengths[:, None]]
    width = array.shape[2]
    each = pa.array(np.arange(len(real) + 1) * width, pa.int32())
    tokens = pa.ListArray.from_arrays(each, pa.array(real.ravel()))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, tokens)
