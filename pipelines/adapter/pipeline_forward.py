"""Chunks of one micro-batch through a pipeline's `_forward`: together where that is the same."""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pipemill.actors.faults.blame import is_row_error
from pipemill.actors.task import NotScheduled

from ..engines.stacking import copy_kwargs, stack, to_float32, unstack
from .first_try import FirstTry
from .images.chunk_encoding import dequantize
from .pickled_chunks import Chunk, DeferredError
from .recording_outputs import RecordingOutputs
from .row_seed import seed_row
from .scheduled_forward import ScheduledForward
from .token_outputs import calls_model_once

if TYPE_CHECKING:
    from ..engines.base import GenerationEngine
    from .parameters.pipeline_keywords import PipelineKeywords
    from .token_outputs import TokenOutputs

_COMPARED = 4  # answers of a task's own postprocessing with the pipeline's

Keywords = dict[str, Any]


class PipelineForward:
    """Runs chunks together only if a first try gives the answers of one at a time.

    Attributes:
        keywords: gives the keywords of preprocess, _forward and postprocess for a row's settings.
        chunked: whether the pipeline makes several chunks of a row.
        by_token: computes chunks of any length at once, where the model answers by token.
        generation: writes texts after several prompts at once, where the task writes texts.
        alone: whether every chunk runs alone, in a micro-batch of chunks of equal length (False)
            and of unequal length (True); what is missing was not tried yet.
        scheduled: gives an engine all chunks at once, where the task writes texts.
        recordings: computes recordings of any length at once, where the model hears a mask.
    """

    def __init__(
        self,
        keywords: PipelineKeywords,
        by_token: TokenOutputs | None,
        generation: GenerationEngine | None,
    ) -> None:
        from transformers.pipelines.base import ChunkPipeline

        self.pipeline, self.keywords = keywords.pipeline, keywords
        self.chunked = isinstance(self.pipeline, ChunkPipeline)
        self.by_token, self.generation = by_token, generation
        self.own_postprocess = keywords.declared.postprocess
        if not calls_model_once(self.pipeline):
            self.own_postprocess = None
        self.compared = 0  # answers of it with the pipeline's
        engine = generation if by_token is None else by_token.encoder.engine
        self.alone: dict[bool, bool] = {}
        self.first_try = FirstTry(self)
        self.scheduled = None
        if generation is not None:
            self.scheduled = ScheduledForward(self, generation)
        self.recordings = None
        several = RecordingOutputs.suits(self.pipeline) and RecordingOutputs.pays(self.pipeline)
        if engine is None and several:
            self.recordings = RecordingOutputs(self.pipeline)
        elif not keywords.declared.batchable:
            # Texts after images of one size, and prompts of one length, may be written together.
            self.alone = {True: True} if generation else {False: True, True: True}
        elif engine is not None and engine.is_exact:
            self.alone = {False: False, True: False}

    @property
    def is_packed(self) -> bool:
        """Whether chunks of any length, and of any settings, may share a micro-batch."""
        if self.by_token is None or self.alone.get(False):
            return False
        return self.by_token.encoder.is_packed

    @property
    def schedules(self) -> bool:
        """Whether chunks may be given in any number, and in several threads at once."""
        return self.scheduled is not None and self.scheduled.suits(self.keywords.of("{}")[1])

    def can_pad(self, during: Keywords) -> bool:
        """Tell whether chunks of unequal length may share a micro-batch.

        during: the keywords of `_forward`.
        """
        if self.by_token is not None:
            return self.by_token.pads
        if self.recordings is not None:
            return self.alone.get(True) is not True
        declared = self.keywords.declared
        if self.generation is None or declared.written is None or not declared.batchable:
            return False
        return self.generation.can_pad(during)

    def is_empty(self, inputs: Any) -> bool:
        """Tell whether a text is to be written without a prompt."""
        ids = inputs.get("input_ids")
        return self.generation is not None and ids is not None and not ids.shape[-1]

    def __call__(self, chunks: list[Chunk], ragged: bool = False) -> list[Any]:
        """Return what regroup needs of each chunk.

        ragged: whether the chunks are of unequal size.

        Raises:
            NotScheduled: they were given at once, and can't be any more.
        """
        if self.scheduled is not None and self.schedules:
            return self.scheduled(chunks)
        if self.generation is not None and len({settings for _, settings in chunks}) > 1:
            raise NotScheduled  # they came at once, and another thread has just found a difference
        ragged = ragged and self.by_token is None  # an encoder has tried it by itself
        if self.recordings is not None:  # a size stands for some hundred numbers
            ragged = len({len(payload) for payload, _ in chunks}) > 1
        if self.generation is not None:
            _, during, _ = self.keywords.of(chunks[0][1])
            deaf = self.scheduled is not None and not self.scheduled.hears_mask
            # Each row has its random numbers; and prompts of unequal length would be padded.
            if self.generation.samples(during) or (ragged and deaf):
                return self.run_singly(chunks)
        if ragged not in self.alone and len(chunks) > 1:
            self._decide(ragged, self.first_try.compare(chunks, ragged))
        run = self.run_together if self.alone.get(ragged) is False else self.run_singly
        return run(chunks)

    def _decide(self, ragged: bool, equal: bool | None) -> None:
        """Note what a first try found, if that was enough."""
        if equal is None:
            return
        self.alone[ragged] = not equal
        if not equal and self.by_token is not None:
            self.by_token.encoder.unpack()

    def rounds(self) -> bool:
        """Tell whether the micro-batch's size may change a text: as always in 16 bits."""
        return self.generation is not None and self.has_16_bits()

    def has_16_bits(self) -> bool:
        """Tell whether the model computes in 16 bits or less."""
        dtype = getattr(self.pipeline.model, "dtype", None)
        return dtype is not None and dtype.itemsize < 4

    def run_singly(self, chunks: list[Chunk], as_computed: bool = False) -> list[Any]:
        """Return what regroup needs of each chunk, computed alone.

        as_computed: whether what `postprocess` reads is wanted in its place.
        """
        encoder = None if self.by_token is None else self.by_token.encoder
        with nullcontext() if encoder is None else encoder.as_loaded():
            return [self._run_single(*chunk, as_computed) for chunk in chunks]

    def _run_single(self, payload: bytes, settings: str, as_computed: bool) -> Any:
        _, during, after = self.keywords.of(settings)
        inputs = pickle.loads(payload)
        with seed_row(inputs, self.pipeline.device):
            images = dequantize(inputs, self.pipeline.device)
            output = self.pipeline.forward(images, **copy_kwargs(during))
        return self._select_compared(output) if as_computed else self.reduce(output, after)

    def run_together(self, chunks: list[Chunk], as_computed: bool = False) -> list[Any]:
        """Return the same, computed in one micro-batch."""
        keywords = [self.keywords.of(settings) for _, settings in chunks]
        inputs = [pickle.loads(payload) for payload, _ in chunks]
        during = [copy_kwargs(during) for _, during, _ in keywords]
        if self.by_token is not None:
            outputs = self.by_token(list(zip(inputs, during, strict=True)))
        # Of equal keywords from here on: others are in other micro-batches.
        elif self.recordings is not None:
            outputs = self.recordings(list(zip(inputs, during, strict=True)))
        elif self.generation is None:
            stacked = dequantize(stack(inputs), self.pipeline.device)
            outputs = unstack(self.pipeline.forward(stacked, **during[0]), len(chunks))
        elif any(map(self.is_empty, inputs)) and not self.generation.is_exact:
            # Beside others one would get a prompt of padding; of several, transformers makes one.
            return self.run_singly(chunks, as_computed)
        else:
            prompts = [dequantize(one, self.pipeline.device) for one in inputs]
            outputs = self.generation.generate(prompts, during[0])
        if as_computed:
            return list(map(self._select_compared, outputs))
        return [
            self.reduce(output, after)
            for output, (_, _, after) in zip(outputs, keywords, strict=True)
        ]

    def inputs_of(self, payload: bytes) -> Any:
        """Return a chunk's inputs, with its images on the pipeline's device."""
        return dequantize(pickle.loads(payload), self.pipeline.device)

    def _select_read(self, output: Any) -> Any:
        """Return of what `_forward` returned what `postprocess` reads, in float32."""
        # A user's class may read anything.
        if self.chunked and self.generation is not None and calls_model_once(self.pipeline):
            output = self.generation.select_read(output)
        return to_float32(output)

    def _select_compared(self, output: Any) -> Any:
        """Return the same without tokens that nobody reads, which may hold anything."""
        output = self._select_read(output)
        return output if self.by_token is None else self.by_token.select_read(output)

    def reduce(self, output: Any, after: Keywords) -> Any:
        """Return what regroup needs of a forward pass.

        Where a row is one chunk its answer is made here: the logits of a vocabulary are a
        thousand times larger, and a split's worth of them would fill the memory.
        """
        output = self._select_read(output)
        if self.chunked:
            return output
        try:
            return self.postprocess(output, after)
        except Exception as error:  # belongs to regroup, which raises it
            if not is_row_error(error):
                raise
            return DeferredError.of(error)

    @property
    def trusts_postprocess(self) -> bool:
        """Whether the task's own way from outputs to answers gave those of the pipeline so far."""
        return self.own_postprocess is not None and self.compared >= _COMPARED

    def postprocess(self, output: Any, after: Keywords) -> Any:
        """Return the pipeline's answer, by the task's own way to it while the first ones agree.

        output: what `_forward` returned for a row; of a pipeline that makes several chunks of it,
            a list of what it returned for each.
        """
        own = self.own_postprocess
        if own is not None and self.trusts_postprocess:
            return own(self.pipeline, output, **copy_kwargs(after))
        usual = self.pipeline.postprocess(output, **copy_kwargs(after))
        if own is not None:
            self.compared += 1
            if own(self.pipeline, output, **copy_kwargs(after)) != usual:
                self.own_postprocess = None
        return usual
