"""All chunks of a split to an engine that writes texts, and itself chooses which run at once."""

from __future__ import annotations

import pickle
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from pipemill.actors.faults.blame import is_memory_failure, is_out_of_memory
from pipemill.actors.faults.watchdog import hold
from pipemill.actors.task import NotScheduled

from ..engines.base import GenerationEngine, Prompt, UnsupportedPrompt, Values
from ..engines.stacking import answers_equal
from .first_try import select_tried
from .images.chunk_encoding import dequantize
from .pickled_chunks import Chunk, DeferredError
from .row_seed import find_seed

if TYPE_CHECKING:
    from .pipeline_forward import PipelineForward

_TRIED_AT_ONCE = 2  # so that texts end while others wait


class ScheduledForward:
    """Hands chunks over only if a first try gives the answers of one at a time.

    Chunks of each kind, as those with an image and those without one, are tried.

    Attributes:
        hears_mask: whether the model writes the same whatever its mask hides, as far as is known.
    """

    def __init__(self, forward: PipelineForward, generation: GenerationEngine) -> None:
        self.forward, self.generation = forward, generation
        self._differs = False
        self.hears_mask = True
        self._tried: set[frozenset[str]] = set()
        # What is computed alone seeds the process's random numbers.
        self._alone = threading.Lock()

    def suits(self, during: Values) -> bool:
        """Tell whether chunks with these keywords of `_forward` may be handed over."""
        return not self._differs and self.generation.schedules(during)

    def __call__(self, chunks: list[Chunk]) -> list[Any]:
        """Return what regroup needs of each chunk. Several threads call it.

        Raises:
            NotScheduled: a first try gave other answers.
        """
        prompts = list(map(self._make_prompt, chunks))
        suits = [
            self.generation.schedules(one.keywords)
            and self.generation.joins(one)
            and (self.generation.is_exact or not self.forward.is_empty(one.inputs))
            for one in prompts
        ]
        with hold(self._alone):
            if not self.generation.is_exact:
                suits = self._try_kinds(chunks, prompts, suits)
            if self._differs:
                raise NotScheduled
            alone = [chunk for chunk, suit in zip(chunks, suits, strict=True) if not suit]
            singles = iter(self._run_alone(alone))
        written = iter(self._write([p for p, suit in zip(prompts, suits, strict=True) if suit]))
        outputs = [next(written if suit else singles) for suit in suits]
        for i, output in enumerate(outputs):
            if isinstance(output, UnsupportedPrompt):
                with hold(self._alone):
                    (outputs[i],) = self._run_alone([chunks[i]])
        return outputs

    def _try_kinds(
        self, chunks: list[Chunk], prompts: list[Prompt], suits: list[bool]
    ) -> list[bool]:
        """Try what is new among the chunks. Return which of them may be handed over.

        A chunk that is the only one of its kind is not: nothing could be tried.
        """
        kinds = [frozenset(prompt.inputs) for prompt in prompts]
        for new in set(kinds) - self._tried:
            each = zip(chunks, kinds, suits, strict=True)
            some = [chunk for chunk, kind, suit in each if suit and kind == new]
            if len(some) > 1 and not self._differs:
                self._try(some)
                self._tried.add(new)
        return [suit and kind in self._tried for kind, suit in zip(kinds, suits, strict=True)]

    def _try(self, chunks: list[Chunk]) -> None:
        some, rounds = select_tried(chunks), self.forward.rounds()
        singles = [] if rounds else self._run_alone(some)
        try:
            written = self._write_tried(some)
            # By rounding, a text may be another one alone, but not in a pass of the same shape.
            pairs = zip(written, self._write_tried(some) if rounds else singles, strict=True)
            equal = [_fail_both(*pair) or answers_equal(*pair) for pair in pairs]
            can = not any(isinstance(one, UnsupportedPrompt) for one in written)
            # A GPU may add up in another order each time.
            differs = sum(equal) < len(equal) / (2 if rounds else 1)
            self._differs, self.hears_mask = differs or not can, not (differs and can)
        except Exception as error:
            if is_out_of_memory(error):  # fewer texts may fit, and be the same
                raise
            self._differs = True

    def _run_alone(self, chunks: list[Chunk]) -> list[Any]:
        with self.generation.pause():
            return self.forward.run_singly(chunks)

    def _write_tried(self, chunks: list[Chunk]) -> list[Any]:
        """Write the texts of a first try; with other values each time in what a mask hides."""
        written = self._write(list(map(self._make_prompt, chunks)), _TRIED_AT_ONCE)
        _check_memory(written)
        return written

    def _write(self, prompts: list[Prompt], most: int | None = None) -> list[Any]:
        outputs = self.generation.write_all(prompts, most)
        return [
            self._reduce(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def _reduce(self, prompt: Prompt, output: Values | Exception) -> Any:
        if isinstance(output, UnsupportedPrompt):
            return output
        if isinstance(output, Exception):
            return DeferredError.of(output)
        return self.forward.reduce(output, self.forward.keywords.of(prompt.settings)[2])

    def _make_prompt(self, chunk: Chunk) -> Prompt:
        payload, settings = chunk
        inputs = pickle.loads(payload)
        during = self.forward.keywords.of(settings)[1]
        seed, load = find_seed(inputs), None
        if self.generation.reads_more(inputs):
            inputs = {name: inputs[name] if name == "input_ids" else None for name in inputs}
            load = partial(self.forward.inputs_of, payload)
        else:
            inputs = dequantize(inputs, "cpu")
        return Prompt(inputs=inputs, keywords=during, settings=settings, seed=seed, load=load)


def _fail_both(one: Any, other: Any) -> bool:
    """Tell whether a text can be written in neither way, for whatever reason."""
    return isinstance(one, DeferredError) and isinstance(other, DeferredError)


def _check_memory(written: list[Any]) -> None:
    """Raise MemoryError if a text did not fit in memory."""
    for one in written:
        if isinstance(one, DeferredError) and is_memory_failure(one.error, one.message):
            raise MemoryError(one.message)
