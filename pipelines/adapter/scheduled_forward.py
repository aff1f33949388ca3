"""All chunks of a split to an engine that writes texts, and itself chooses which run at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from ..engines.base import GenerationEngine, Prompt, Values
from ..engines.stacking import answers_equal
from .pickled_chunks import DeferredError
from .row_seed import find_seed

if TYPE_CHECKING:
    from .pipeline_forward import Chunk, PipelineForward

T = TypeVar("T")

_TRIED = 4  # of the first chunks, which are compared with what each gives alone
_TRIED_AT_ONCE = 2  # so that texts end while others wait


class ScheduledForward:
    """Hands chunks over only if a first try gives the answers of one at a time."""

    def __init__(self, forward: PipelineForward, generation: GenerationEngine) -> None:
        self.forward, self.generation = forward, generation
        self._differs: bool | None = False if generation.is_exact else None
        # What is computed alone seeds the process's random numbers.
        self._alone = threading.Lock()

    def suits(self, during: Values) -> bool:
        """Tell whether chunks with these keywords of `_forward` may be handed over."""
        return not self._differs and self.generation.schedules(during)

    def __call__(self, chunks: list[Chunk]) -> list[Any]:
        """Return what regroup needs of each chunk. Several threads call it."""
        prompts = list(map(self._prompt, chunks))
        suits = [
            self.generation.schedules(one.keywords) and not self.forward.is_empty(one.inputs)
            for one in prompts
        ]
        with self._alone:
            if self._differs is None and sum(suits) > 1:
                self._try([chunk for chunk, suit in zip(chunks, suits, strict=True) if suit])
            if self._differs:
                return self.forward.run_singly(chunks)
            alone = [chunk for chunk, suit in zip(chunks, suits, strict=True) if not suit]
            singles = iter(self.forward.run_singly(alone))
        written = iter(self._write([p for p, suit in zip(prompts, suits, strict=True) if suit]))
        return [next(written if suit else singles) for suit in suits]

    def _try(self, chunks: list[Chunk]) -> None:
        some = select_tried(chunks)
        singles = self.forward.run_singly(some)
        try:
            written = self._write(list(map(self._prompt, some)), _TRIED_AT_ONCE)
            self._differs = not (self.forward.rounds() or all(map(answers_equal, written, singles)))
        except Exception:
            self._differs = True

    def _write(self, prompts: list[Prompt], most: int | None = None) -> list[Any]:
        outputs = self.generation.write_all(prompts, most)
        return [
            DeferredError.of(output)
            if isinstance(output, Exception)
            else self.forward.reduce(output, self.forward.keywords.of(prompt.settings)[2])
            for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def _prompt(self, chunk: Chunk) -> Prompt:
        payload, settings = chunk
        inputs = self.forward.inputs_of(payload)
        during = self.forward.keywords.of(settings)[1]
        return Prompt(inputs=inputs, keywords=during, settings=settings, seed=find_seed(inputs))


def select_tried(chunks: list[T]) -> list[T]:
    """Return some chunks, from the longest to the shortest: the first may be as long as can be."""
    last, steps = len(chunks) - 1, _TRIED - 1
    return [chunks[i] for i in sorted({step * last // steps for step in range(_TRIED)})]
