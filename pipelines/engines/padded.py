"""Chunks one below the other, filled up to one width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from pipemill.actors.device_transfer import to_device

from .base import Columns, Engine, ModelOutputs
from .model_call import ModelCall, select_first_tokens
from .packed_attention import find_runs

# Places for each token.
_MOST = 4


class PaddedEngine(Engine):
    """Runs a model as transformers loaded it.

    mixes_lengths: whether chunks of unequal length share a forward pass. MobileBERT looks at a
        token's neighbours, CANINE at several characters at a time: padding would change answers.
    """

    is_exact = False

    def __init__(self, pipeline: Any, outputs: ModelOutputs, mixes_lengths: bool = True) -> None:
        self.pipeline, self.outputs, self.mixes_lengths = pipeline, outputs, mixes_lengths
        self._call = ModelCall(pipeline, outputs)

    def run(self, columns: Columns, lengths: np.ndarray) -> Any:
        if self.mixes_lengths or (lengths == lengths[0]).all():
            return self.run_padded(columns, lengths)
        return self.run_by_length(columns, lengths)

    def run_by_length(self, columns: Columns, lengths: np.ndarray, together: bool = True) -> Any:
        """Run chunks of equal length at once, or each chunk alone: nothing is padded."""
        import torch

        answers = []
        for start, count, length in find_runs(lengths):
            each = count if together else 1
            for first in range(start, start + count * length, each * length):
                some = {name: v[first : first + each * length] for name, v in columns.items()}
                answers.append(self.run_padded(some, np.full(each, length)))
        return torch.cat(answers)

    def run_padded(
        self,
        columns: Columns,
        lengths: np.ndarray,
        width: int | None = None,
        model: Callable[..., Any] | None = None,
    ) -> Any:
        """Run all chunks at once.

        Args:
            columns: see `Engine.run`.
            lengths: see `Engine.run`.
            width: the tokens that chunks are padded to; None for the longest chunk's.
            model: what is called instead of the pipeline's model.
        """
        tokenizer, reads = self.pipeline.tokenizer, self.outputs.reads
        inputs, here = pad(columns, lengths, tokenizer, width)
        output = self._call(inputs, model, hides=None if model else not here.all())
        if reads == "first":
            return select_first_tokens(output)
        # Perceiver's number of outputs does not depend on the text. Its masks' are at their places.
        if reads == "masks" and output.shape[1] > here.shape[1]:
            output = output[:, : here.shape[1]]
        if output.shape[:2] != here.shape:
            raise ValueError(f"the model has {tuple(output.shape[:2])} outputs for {here.shape}")
        if reads == "masks":
            here &= inputs["input_ids"] == tokenizer.mask_token_id
        # Where they are, not whether: of a mask the host would ask the device how many.
        return output.flatten(0, 1)[to_device(np.flatnonzero(here), output.device)]


def is_mostly_padding(lengths: np.ndarray) -> bool:
    """Tell whether these chunks, padded, would be several times as many tokens.

    The budget of packed chunks counts no padding: beside one long chunk a thousand short ones
    would be as long.
    """
    return bool(len(lengths) * lengths.max() > _MOST * lengths.sum())


def split_in_half(columns: Columns, lengths: np.ndarray) -> Iterator[tuple[Columns, np.ndarray]]:
    """Yield the first half of the chunks, and the others."""
    half = len(lengths) // 2
    at = int(lengths[:half].sum())
    yield {name: values[:at] for name, values in columns.items()}, lengths[:half]
    yield {name: values[at:] for name, values in columns.items()}, lengths[half:]


def pad(
    columns: Columns, lengths: np.ndarray, tokenizer: Any, width: int | None = None
) -> tuple[Columns, np.ndarray]:
    """Return a model's inputs, and which of their places are tokens, of shape (chunks, width).

    Args:
        columns: of chunks one after the other, shape (tokens,).
        lengths: the tokens of each chunk, shape (chunks,).
        tokenizer: knows the padding token, and whether the model takes a mask.
        width: in tokens; None for the longest chunk's.
    """
    here = np.arange(width or lengths.max(initial=0)) < lengths[:, None]
    inputs = {}
    for name, values in columns.items():
        fill = tokenizer.pad_token_id if name == "input_ids" else 0
        inputs[name] = np.full(here.shape, fill or 0, dtype=np.int64)
        inputs[name][here] = values
    if "attention_mask" in tokenizer.model_input_names:
        inputs["attention_mask"] = here.astype(np.int64)
    return inputs, here
