"""Chunks of one micro-batch through a pipeline's `_forward`: together where that is the same."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipemill.actors.task import Loaded

from pipemill.errors import error_message

from ..engines.batched_generation import make_batched_generation
from ..engines.token_outputs import make_token_outputs
from ..pipeline_task import PipelineTask
from .chunk_encoding import dequantize
from .row_seed import seed_row
from .stacking import answers_equal, stack, to_float32, unstack

_TRIED = 4  # chunks of the first micro-batch that are compared

Keywords = dict[str, Any]
Chunk = tuple[bytes, str]  # pickled inputs, and the row's own settings


@dataclass(frozen=True)
class DeferredError:
    """An exception by name: not every exception survives pickling."""

    error: str
    message: str


class PipelineForward:
    """Runs chunks together only if a first try gave the answers of one at a time.

    sanitized: from a row's settings to the keywords of preprocess, _forward and postprocess.
    alone: whether every chunk runs alone, of equal length (False) and of others (True) in a
        micro-batch; what is not there was not tried.
    """

    def __init__(
        self,
        declared: PipelineTask,
        loaded: Loaded,
        sanitized: Callable[[str], tuple[Keywords, ...]],
    ) -> None:
        from transformers.pipelines.base import ChunkPipeline

        self.pipeline, self.sanitized = loaded.pipeline, sanitized
        self.chunked = isinstance(loaded.pipeline, ChunkPipeline)
        self.by_token = make_token_outputs(declared, loaded)
        self.generating = make_batched_generation(declared, loaded)
        self.alone: dict[bool, bool] = {} if declared.stacks else {False: True, True: True}

    @property
    def packed(self) -> bool:
        """Whether chunks of any length, and of any settings, may share a micro-batch."""
        return (
            self.by_token is not None and not self.alone.get(False) and self.by_token.encoder.packed
        )

    def pads(self, during: Keywords) -> bool:
        """Whether chunks of unequal length may share a micro-batch.

        during: the keywords of `_forward`.
        """
        if self.by_token is not None:
            return self.by_token.pads
        return self.generating is not None and self.generating.pads(during)

    def is_empty(self, inputs: Any) -> bool:
        """Whether a text is to be written without a prompt."""
        return self.generating is not None and self.generating.has_no_prompt(inputs)

    def __call__(self, chunks: list[Chunk], ragged: bool = False) -> list[Any]:
        """What regroup needs of each chunk.

        ragged: whether they are of unequal length.
        """
        ragged = ragged and self.generating is not None  # an encoder has tried it by itself
        if self.generating is not None and self.generating.draws_lots(
            self.sanitized(chunks[0][1])[1]
        ):
            return self._singly(chunks)
        if ragged not in self.alone and len(chunks) > 1:
            self._try(chunks, ragged)
        return self._together(chunks) if self.alone.get(ragged) is False else self._singly(chunks)

    def _try(self, chunks: list[Chunk], ragged: bool) -> None:
        # From the longest to the shortest: of the first ones all may be as long as can be.
        last, steps = len(chunks) - 1, _TRIED - 1
        some = [chunks[i] for i in sorted({step * last // steps for step in range(_TRIED)})]
        singles = self._singly(some)
        try:
            together = self._together(some)
            self.alone[ragged] = not (self._rounds() or all(map(answers_equal, together, singles)))
        except Exception:
            self.alone[ragged] = True
        if self.alone[ragged] and self.by_token is not None:
            self.by_token.encoder.unpack()

    def _rounds(self) -> bool:
        """Whether a text may be another because of the micro-batch's size: in 16 bits, as ever."""
        return self.generating is not None and self.pipeline.model.dtype.itemsize < 4

    def _singly(self, chunks: list[Chunk]) -> list[Any]:
        with self._usual_model():
            return [self._single(*chunk) for chunk in chunks]

    @contextmanager
    def _usual_model(self) -> Iterator[None]:
        if self.by_token is None:
            yield
            return
        with self.by_token.encoder.padding():
            yield

    def _single(self, payload: bytes, settings: str) -> Any:
        _, during, after = self.sanitized(settings)
        inputs = self._inputs(payload)
        with seed_row(inputs, self.pipeline.device):
            output = self.pipeline.forward(inputs, **copy_kwargs(during))
        return self._reduced(output, after)

    def _together(self, chunks: list[Chunk]) -> list[Any]:
        keywords = [self.sanitized(settings) for _, settings in chunks]
        inputs = [self._inputs(payload) for payload, _ in chunks]
        if self.by_token is not None:
            outputs = self.by_token(
                [
                    (one, copy_kwargs(during))
                    for one, (_, during, _) in zip(inputs, keywords, strict=True)
                ]
            )
        elif self.is_empty(inputs[0]):
            return self._singly(chunks)  # transformers makes one text of them, however many
        else:  # of equal keywords: others are in other micro-batches
            join = stack if self.generating is None else self.generating.stacked
            together = self.pipeline.forward(join(inputs), **copy_kwargs(keywords[0][1]))
            outputs = unstack(together, len(chunks))
            if self.generating is not None:
                outputs = self.generating.unstacked(outputs, inputs, keywords[0][1])
        return [
            self._reduced(output, after)
            for output, (_, _, after) in zip(outputs, keywords, strict=True)
        ]

    def _inputs(self, payload: bytes) -> Any:
        return dequantize(pickle.loads(payload), self.pipeline.device)

    def _reduced(self, output: Any, after: Keywords) -> Any:
        """What regroup needs of a forward pass.

        Where a row is one chunk its answer is made here: the logits of a vocabulary are a
        thousand times larger, and a split's worth of them would fill the memory.
        """
        output = to_float32(output)
        if self.chunked:
            return output
        try:
            return self.pipeline.postprocess(output, **copy_kwargs(after))
        except Exception as error:  # belongs to regroup, which raises it
            return DeferredError(type(error).__name__, error_message(error))


def copy_kwargs(keywords: Keywords) -> Keywords:
    """Some pipelines write into the dictionaries they are given."""
    return {k: dict(v) if isinstance(v, dict) else v for k, v in keywords.items()}
