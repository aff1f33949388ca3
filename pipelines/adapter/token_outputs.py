"""A pipeline's `_forward` for chunks of any length at once, where its model answers by token."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ..text import model_limits
from ..text.token_chunks import INPUTS

if TYPE_CHECKING:
    from ..engines.encoder import Encoder

# Whose `_forward` calls the model once, with what the tokenizer made, and nothing more.
_KNOWN = ("transformers", "pipemill")

Inputs = dict[str, Any]


def calls_model_once(pipeline: Any) -> bool:
    """Tell whether a pipeline is not the user's, which may call its model as it likes."""
    return type(pipeline).__module__.partition(".")[0] in _KNOWN


class TokenOutputs:
    """The outputs of `_forward` for several chunks, from one call of the model.

    The model runs once, on all chunks' tokens; then `_forward` runs for each of them, its model
    answering with that chunk's share.
    """

    def __init__(self, pipeline: Any, encoder: Encoder) -> None:
        self.pipeline, self.encoder = pipeline, encoder
        self.pads = not model_limits.needs_equal_sizes(pipeline)

    def __call__(self, chunks: list[tuple[Inputs, Inputs]]) -> list[Any]:
        """Return what `_forward` returns for each chunk.

        chunks: the inputs of `_forward`, each tensor of one row, and its keywords.
        """
        columns: dict[str, np.ndarray] = {
            name: np.concatenate([inputs[name][0].numpy() for inputs, _ in chunks])
            for name in INPUTS
            if name in chunks[0][0]
        }
        lengths = np.array([inputs["input_ids"].shape[1] for inputs, _ in chunks])
        found, at, outputs = self.encoder.run(columns, lengths).cpu(), 0, []
        # A copy: another thread may be at `postprocess`, and look at the model's configuration.
        pipeline = copy.copy(self.pipeline)
        for inputs, keywords in chunks:
            read = self._is_read(inputs["input_ids"][0].numpy())
            share = found[at : at + np.count_nonzero(read)]
            at += len(share)
            answer = self._place_outputs(share, read)
            pipeline.model = lambda answer=answer, **inputs: answer
            outputs.append(pipeline._forward(inputs, **keywords))
        return outputs

    def select_read(self, output: Any) -> Any:
        """Leave out of a chunk's output what nobody reads.

        Other tokens may hold anything; hidden states and attention may be there too.
        """
        import torch

        if self.encoder.outputs.reads != "masks":
            return output
        read = torch.from_numpy(self._is_read(output["input_ids"][0].numpy()))
        names = (*self.encoder.outputs.names, "input_ids")
        return {name: output[name][:, read] for name in names}

    def _is_read(self, ids: np.ndarray) -> np.ndarray:
        if self.encoder.outputs.reads == "masks":
            return ids == self.pipeline.tokenizer.mask_token_id
        return np.ones(len(ids), dtype=bool)

    def _place_outputs(self, share: Any, read: np.ndarray) -> dict[str, Any]:
        """Return the model's outputs for a chunk, of shape (1, tokens, …).

        What lies where no token is read is never looked at, nor filled: the logits of a
        vocabulary for a whole text would be a hundred times more to write than for its masks.
        """
        import torch

        whole, names = share, self.encoder.outputs.names
        if not read.all():
            whole = share.new_empty((len(read), *share.shape[1:]))
            whole[torch.from_numpy(read)] = share
        parts = whole.unbind(-1) if len(names) > 1 else [whole]
        return {name: part[None] for name, part in zip(names, parts, strict=True)}


def strip_padding(inputs: Inputs) -> Inputs:
    """Return a chunk's tensors, of shape (1, tokens, …), as if its tokenizer had not padded."""
    mask = inputs.get("attention_mask")
    if mask is None or mask.all():
        return inputs
    real = mask[0].bool()
    return {
        name: value[:, real] if getattr(value, "shape", ())[:2] == mask.shape else value
        for name, value in inputs.items()
    }
