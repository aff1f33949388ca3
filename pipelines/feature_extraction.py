"""feature-extraction: a text as one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.on_host import Outputs, on_device, on_host
from pipemill.actors.task import Column, Loaded, Parameter

from . import text_encoder, windows
from .encoder import Encoder
from .pooling import POOLINGS


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
    adds = "embedding: a fixed-size list of float32; with pooling none one for each token"
    repeats = True
    inputs = (Column(name="text", kind="text"),)
    parameters: Mapping[str, Parameter] = {
        "pooling": Parameter("mean", "str", POOLINGS),
        "normalize": Parameter(False, "bool"),
        **windows.PARAMETERS,
        "tokenize_kwargs": Parameter(None, "dict|null"),
        "return_tensors": Parameter(False, "bool"),  # a column holds neither list nor tensor
    }

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        windows.check(with_tokenize_kwargs(parameters))

    def __init__(self, loaded: Loaded) -> None:
        pipeline = loaded.pipeline
        settings = with_tokenize_kwargs(loaded.settings(self.parameters))
        shape = _output_shape(pipeline)
        self.pooling, self.normalize = settings["pooling"], settings["normalize"]
        one = len(shape) < 3 or self.pooling == "cls"
        self.encoder = Encoder(pipeline, reads="first" if one else "all", compiles=loaded.compiles)
        limits = [_longest(pipeline, settings["truncation"]), settings["max_length"]]
        limit = min((limit for limit in limits if limit), default=None)
        self.cutter = windows.Cutter.of(pipeline, limit, settings)
        self.width = shape[-1]

    @property
    def packed(self) -> bool:
        return self.encoder.packed

    def results(self) -> pa.Schema:
        if self.pooling == "none":
            return pa.schema([("embedding", pa.list_(pa.list_(pa.float32())))])
        return pa.schema([("embedding", pa.list_(pa.float32(), self.width))])

    def expand(self, rows: pa.Table) -> pa.ListArray:
        return self.cutter.chunks(rows["text"].to_pylist())

    def forward(self, chunks: pa.StructArray) -> Outputs:
        states, lengths = self.encoder(chunks)
        several = lengths if self.encoder.reads == "all" else np.ones_like(lengths)
        if self.pooling == "none":
            return on_host(states, lambda array: _token_vectors(array, several))
        pooled = _pool(states, several, self.pooling)
        return on_host(pooled, lambda array: windows.with_sizes(array, lengths))

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


def with_tokenize_kwargs(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters, with the tokenizer's own beside them, as if they had been given so.

    Raises ValueError for one that the texts can't be cut with, and one that was given twice.
    """
    inside = parameters.get("tokenize_kwargs") or {}
    for name, value in inside.items():
        known = windows.PARAMETERS.get(name)
        if known is None:
            names = ", ".join(windows.PARAMETERS)
            raise ValueError(f"tokenize_kwargs takes {names}, not {name!r}")
        known.taken(f"tokenize_kwargs: {name}", value)
        if parameters.get(name, known.default) != known.default:
            raise ValueError(f"{name} is given twice: beside tokenize_kwargs, and in it")
    return {**parameters, **inside}


def _output_shape(pipeline: Any) -> tuple[int, ...]:
    """Of the model's output for one token: (1, 1, width), or (1, width) where it pools, like DPR.

    OPT and Reformer put out vectors of another width than their configuration's.
    """
    import torch

    model = pipeline.model
    usual = 1, 1, int(model.config.get_text_config().hidden_size)
    if text_encoder.needs_own_length(model):  # a short chunk might change it
        return usual
    try:
        token = torch.zeros((1, 1), dtype=torch.int64, device=pipeline.device)
        with torch.inference_mode():
            return tuple(model(input_ids=token)[0].shape)
    except Exception:  # of one without weights, or that needs more than a token
        return usual


def _longest(pipeline: Any, truncation: bool | str | None) -> int | None:
    """The most tokens that are one chunk: what the model has positions for, or, where it has no
    table of them that could end, what it was trained for. Cut texts end where transformers' do."""
    config = pipeline.model.config.get_text_config()
    cut = text_encoder.max_length(pipeline)
    if windows.truncates(truncation):
        return cut
    trained = getattr(config, "max_position_embeddings", None)
    return text_encoder.positions(pipeline.model) or cut or trained


def _pool(states: Any, lengths: np.ndarray, pooling: str) -> Any:
    """(tokens, width) hidden states of chunks of these lengths to (chunks, width)."""
    import torch

    ends = np.cumsum(lengths)
    if pooling in ("cls", "last"):
        place = ends - lengths if pooling == "cls" else ends - 1
        return states[on_device(place, states.device)]
    each = on_device(lengths, states.device)
    # unsafe: the lengths are right, and a look at them would wait for the device.
    return torch.segment_reduce(states.float(), pooling, lengths=each, axis=0, unsafe=True)


def _token_vectors(array: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Shape (tokens, width) as one list of vectors per chunk, as long as the chunk."""
    each = pa.array(np.arange(len(array) + 1) * array.shape[1], pa.int32())
    tokens = pa.ListArray.from_arrays(each, pa.array(array.ravel()))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, tokens)
