"""What computes for a task: the protocol behind which an engine sits.

An engine of another library is one file: a function that makes an `Engine` of a pipeline, and
perhaps one that makes a `GenerationEngine`, named by an `EngineFactory`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from .graphs.runtime import GraphRuntime

Columns = dict[str, np.ndarray]
Values = dict[str, Any]


Reads = Literal["first", "all", "masks"]


@dataclass(frozen=True, kw_only=True)
class ModelOutputs:
    """The outputs of a model that a task wants.

    Attributes:
        reads: for which tokens: each chunk's "first" (a classifier's), "all", or its "masks".
        names: of the model's outputs, which are stacked on the last axis; () for its first one.
    """

    reads: Reads
    names: tuple[str, ...] = ()


class Engine(Protocol):
    """Computes a text model's outputs for micro-batches of chunks.

    Attributes:
        is_packed: whether a micro-batch costs the tokens of its chunks only, and no padding.
        is_exact: whether a chunk's answer is that of the chunk alone. Where it may not be, a first
            micro-batch is compared with one chunk at a time, if the task has a pipeline for that.
    """

    is_packed: bool = False
    is_exact: bool = True

    def run(self, columns: Columns, lengths: np.ndarray) -> Any:
        """Return the model's output for each token that is read, of all chunks in their order.

        Args:
            columns: the model's inputs by name ("input_ids", …), each of shape (tokens,): chunks
                one after the other.
            lengths: the tokens of each chunk, at least 1, shape (chunks,).

        Returns:
            A torch tensor on any device, or a numpy array; of shape (tokens read, width), or
            (tokens read, width, outputs) for several outputs.
        """

    def as_loaded(self) -> AbstractContextManager[None]:
        """Keep the pipeline's model as transformers loaded it inside the block."""
        return nullcontext()

    def release(self) -> None:
        """Leave the pipeline's model as transformers loaded it, for good."""
        return


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a text is written after.

    Attributes:
        inputs: those of the pipeline's `_forward` for this prompt alone: tensors of one row,
            `input_ids` of shape (1, tokens).
        keywords: those of `_forward`.
        settings: a text that is equal where the keywords are.
        seed: of the text's random numbers.
        load: makes the inputs again, for a prompt that `reads_more`. In `inputs` all but its tokens
            are None: the images of many prompts would fill the memory.
    """

    inputs: Values
    keywords: Values
    settings: str
    seed: int
    load: Callable[[], Values] | None = None


class UnsupportedPrompt(TypeError):
    """A prompt that an engine can't write on after, though its keywords suit."""


class GenerationEngine(Protocol):
    """Writes texts after prompts.

    Attributes:
        is_exact: whether each text is the one that its prompt gets alone, after one of no token,
            too. Where it may not be, a first micro-batch is compared with one prompt at a time.
    """

    is_exact: bool

    def schedules(self, keywords: Values) -> bool:
        """Tell whether prompts with these keywords are given to `write_all`.

        keywords: those of `_forward`.
        """
        return False

    def joins(self, prompt: Prompt) -> bool:
        """Tell whether others can be computed with this prompt, if its keywords suit."""
        return True

    def pause(self) -> AbstractContextManager[None]:
        """Write no text elsewhere inside the block, if that would change what `_forward` does."""
        return nullcontext()

    def reads_more(self, inputs: Values) -> bool:
        """Tell whether a prompt is more than its tokens, and is given with `load`.

        inputs: those of `_forward`.
        """
        return False

    def write_all(self, prompts: list[Prompt], most: int | None = None) -> list[Values | Exception]:
        """Return what the pipeline's `_forward` would return for each prompt alone, or its error.

        The engine itself chooses which prompts it computes at a time. Several threads call it.
        For a prompt with an UnsupportedPrompt, `_forward` itself is called.

        Args:
            prompts: in any number.
            most: of how many prompts at a time texts are written, at most.
        """
        raise AssertionError(f"{type(self).__name__} schedules no prompts")

    def samples(self, keywords: Values) -> bool:
        """Tell whether texts are drawn by chance: then each prompt is written on alone."""

    def can_pad(self, keywords: Values) -> bool:
        """Tell whether prompts of unequal length may be written on together."""

    def generate(self, prompts: list[Values], keywords: Values) -> list[Values]:
        """Return what the pipeline's `_forward` would return for each prompt alone.

        Args:
            prompts: the inputs of `_forward`: tensors of one row, `input_ids` of shape (1, tokens).
            keywords: those of `_forward`, the same for all prompts.
        """

    def select_read(self, output: Any) -> Any:
        """Return what the pipeline's `postprocess` reads of what its `_forward` returned."""
        return output


@dataclass(frozen=True, kw_only=True)
class EngineFactory:
    """An engine that a job names in `model.engine`.

    Attributes:
        name: how the job names it.
        encode: makes what computes a text model's outputs, from a `transformers.Pipeline` and the
            outputs that a task wants; None where it runs no such tasks.
        generate: makes what writes texts, from a pipeline and the name of the ids that its
            `_forward` returns; None where it writes none.
        schedules_all: whether prompts with any keywords are given to its `write_all`. Else it gets
            no prompts of tasks whose prompts can't be stacked.
        graph: runs the exported model of any task in `GRAPH_TASKS`, in place of the pipeline's own.
        loads_weights: whether it computes with the pipeline's own model. Else that model has no
            weights: it is on the meta device.
        spreads: whether it divides a model among the GPUs of a worker that holds several. Then
            `generate` also gets their number, or the share of one that the worker holds.
        modules: what it imports on a worker, beside what its `graph` needs.
    """

    name: str
    encode: Callable[[Any, ModelOutputs], Engine] | None = None
    generate: Callable[..., GenerationEngine] | None = None
    schedules_all: bool = False
    graph: GraphRuntime | None = None
    loads_weights: bool = True
    spreads: bool = False
    modules: tuple[str, ...] = ()
