"""Run a text model on micro-batches of chunks, with the engine that suits the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.task import Loaded

from ..text import model_limits
from .base import Columns, Engine, ModelOutputs, Reads
from .compiled import CompiledEngine
from .graphs.graph_engine import GraphEngine
from .packing_probe import find_packed_engine, is_padding_exact
from .padded import PaddedEngine
from .registry import PADDED, find_engine


class Encoder:
    """A text model and the engine that runs it.

    Attributes:
        pipeline: has the tokenizer whose ids the model reads.
        outputs: which of the model's outputs are wanted.
        engine: computes micro-batches.
    """

    def __init__(self, pipeline: Any, outputs: ModelOutputs, engine: Engine) -> None:
        self.pipeline, self.outputs, self.engine = pipeline, outputs, engine
        self._rows = model_limits.count_embedding_rows(pipeline.model)
        self._padded: Engine | None = None

    @property
    def is_packed(self) -> bool:
        """Whether a micro-batch costs the tokens of its chunks only, and no padding."""
        return self.engine.is_packed

    def __call__(
        self, chunks: pa.StructArray, names: Sequence[str] | None = None
    ) -> tuple[Any, np.ndarray]:
        """Return the output for each token that is read, and each chunk's length in tokens.

        The output is a tensor of shape (tokens read of all chunks, width): without padding.

        names: the fields that the model gets if there are any; None for the tokenizer's.
        """
        lengths = chunks.field("size").to_numpy().copy()  # torch wants an array it may write to
        columns = {
            name: chunks.field(name).flatten().to_numpy().astype(np.int64)
            for name in names or self.pipeline.tokenizer.model_input_names
            if chunks.type.get_field_index(name) >= 0
        }
        return self.run(columns, lengths), lengths

    def run(self, columns: Columns, lengths: np.ndarray) -> Any:
        """Return the same for chunks one after the other, each column of shape (tokens,).

        Raises:
            ValueError: a chunk without tokens, or a token that the model does not know.
        """
        import torch

        if lengths.min(initial=1) < 1:
            raise ValueError("there are no tokens to compute")
        model_limits.check_token_ids(columns.get("input_ids", lengths[:0]), self._rows)
        return torch.as_tensor(self.engine.run(columns, lengths))

    def as_loaded(self) -> AbstractContextManager[None]:
        """Keep the model as transformers loaded it inside the block; run only that there."""
        return self.engine.as_loaded()

    @contextmanager
    def padding(self) -> Iterator[None]:
        """Pad chunks inside the block, and keep the model as transformers loaded it."""
        engine = self.engine
        with engine.as_loaded():
            self._padded = self._padded or choose_padded_engine(self.pipeline, self.outputs)
            self.engine = self._padded
            try:
                yield
            finally:
                self.engine = engine

    def unpack(self) -> None:
        """Pad chunks from now on: packed answers were wrong after all."""
        if self.engine.is_packed:
            self.engine.release()
            self.engine = choose_padded_engine(self.pipeline, self.outputs)


def make_encoder(loaded: Loaded, reads: Reads, names: tuple[str, ...] = ()) -> Encoder:
    """Return the model of a loaded pipeline with the engine that suits it.

    The model may be changed for that, and a first micro-batch is computed in several ways.

    Args:
        loaded: its `engine` names the engine, its `compiles` wants a compiled model.
        reads: see `ModelOutputs`.
        names: see `ModelOutputs`.

    Raises:
        ValueError: the named engine does not run such models.
    """
    outputs = ModelOutputs(reads=reads, names=names)
    return Encoder(loaded.pipeline, outputs, choose_engine(loaded, outputs))


def choose_engine(loaded: Loaded, outputs: ModelOutputs) -> Engine:
    """Return the named engine, or else the fastest one whose answers are right."""
    pipeline = loaded.pipeline
    if (factory := find_engine(loaded.engine)) is not None:
        if factory.graph is not None:
            exact = pipeline.device.type == "cpu" and is_padding_exact(pipeline, outputs)
            return GraphEngine(pipeline, outputs, exact, factory.graph)
        if factory.encode is None:
            raise ValueError(f"the engine {factory.name} (model.engine) runs no such model")
        return factory.encode(pipeline, outputs)
    if loaded.engine == PADDED or pipeline.device.type == "meta":  # which only tokenizes
        return PaddedEngine(pipeline, outputs, mixes_lengths=False)
    if loaded.compiles:
        exact = is_padding_exact(pipeline, outputs)
        compiled = CompiledEngine if exact else partial(PaddedEngine, mixes_lengths=False)
        return compiled(pipeline, outputs)
    return find_packed_engine(pipeline, outputs) or choose_padded_engine(pipeline, outputs)


def choose_padded_engine(pipeline: Any, outputs: ModelOutputs) -> PaddedEngine:
    """Return an engine that pads chunks of unequal length if that changes no answer."""
    return PaddedEngine(pipeline, outputs, is_padding_exact(pipeline, outputs))
