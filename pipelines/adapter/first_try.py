"""A first try: whether chunks of one micro-batch give the answers that each gives alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pipemill.actors.faults.blame import is_out_of_memory, is_row_error

from ..engines.stacking import (
    ALIKE,
    CLOSE,
    ROUNDED,
    ROUNDED_ON_GPU,
    answers_equal,
    copy_kwargs,
)
from .pickled_chunks import Chunk

if TYPE_CHECKING:
    from .pipeline_forward import PipelineForward

T = TypeVar("T")

TRIED = 4  # of the first chunks, which are compared with what each gives alone


class FirstTry:
    """Compares what a pipeline makes of some chunks together with what it makes of each alone."""

    def __init__(self, forward: PipelineForward) -> None:
        self.forward = forward
        # Chunks that gave the same together, so far: of equal size (False), and unequal (True).
        self._equal = {False: 0, True: 0}

    def compare(self, chunks: list[Chunk], ragged: bool) -> bool | None:
        """Tell whether some of the chunks give the same together; None: so far, of too few.

        ragged: whether the chunks are of unequal size.
        """
        forward, some, close = self.forward, select_tried(chunks), self._choose_closeness()
        if ragged and forward.recordings is not None:
            some = forward.recordings.vary_lengths(some)
        # An answer may be another one by rounding: two labels whose scores are nearly equal.
        as_computed = close > CLOSE
        singles = forward.run_singly(some, as_computed)
        try:
            together = forward.run_together(some, as_computed)
            pairs = list(zip(together, singles, strict=True))
            if forward.rounds():
                equal = ragged or self._are_texts_own(some, together, as_computed)
            else:
                equal = all(answers_equal(*pair, close) for pair in pairs)
            if as_computed and not equal and not ragged:
                equal = self._is_own_answer(some, pairs)
            if as_computed and equal:
                each = zip(pairs, some, strict=True)
                equal = not any(
                    self._is_answer_lost(*pair, settings) for pair, (_, settings) in each
                )
        except Exception as error:
            if is_out_of_memory(error):  # fewer chunks may fit, and give the same answers
                raise
            return False
        self._equal[ragged] += len(some)
        return None if equal and self._equal[ragged] < TRIED else equal

    def _are_texts_own(self, chunks: list[Chunk], together: list[Any], as_computed: bool) -> bool:
        """Tell whether most chunks among others have the text that they have among their copies.

        Equal shapes are rounded alike, but for a GPU that adds up in another order each time.
        """
        copies = [
            self.forward.run_together([chunk] * len(chunks), as_computed)[i]
            for i, chunk in enumerate(chunks)
        ]
        equal = [answers_equal(*pair) for pair in zip(together, copies, strict=True)]
        return sum(equal) >= len(equal) / 2

    def _is_own_answer(self, chunks: list[Chunk], pairs: list[tuple[Any, Any]]) -> bool:
        """Tell whether each chunk among others has the answer that it has among its copies.

        A micro-batch's shape decides how its numbers are rounded. Some models, as those that choose
        the best of many boxes, are then far from what they answer to one chunk.

        pairs: for each chunk what was computed together, and alone.
        """
        for i, (together, single) in enumerate(pairs):
            if not answers_equal(together, single, ALIKE):
                return False
            copies = self.forward.run_together([chunks[i]] * len(chunks), as_computed=True)
            if not answers_equal(together, copies[i]):
                return False
        return True

    def _is_answer_lost(self, together: Any, single: Any, settings: str) -> bool:
        """Tell whether only what was computed alone has all that `postprocess` reads."""
        _, _, after = self.forward.keywords.of(settings)

        def can_answer(output: Any) -> bool:
            try:
                self.forward.pipeline.postprocess(
                    [output] if self.forward.chunked else output, **copy_kwargs(after)
                )
            except Exception as error:
                if not is_row_error(error) or is_out_of_memory(error):
                    raise
                return False
            return True

        return not can_answer(together) and can_answer(single)

    def _choose_closeness(self) -> float:
        """Return how far numbers may be apart, as a share of the largest, by rounding alone."""
        if self.forward.has_16_bits():
            return ROUNDED
        # cuDNN convolves float32 with 10 bits of a number, by a kernel that the shape decides.
        return CLOSE if self.forward.pipeline.device.type == "cpu" else ROUNDED_ON_GPU


def select_tried(chunks: list[T]) -> list[T]:
    """Return some chunks, from the longest to the shortest: the first may be as long as can be."""
    last, steps = len(chunks) - 1, TRIED - 1
    return [chunks[i] for i in sorted({step * last // steps for step in range(TRIED)})]
