"""A pipeline's `_forward` for chunks of any length at once, where its model answers by token."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from pipemill.actors.task import Loaded

from ..pipeline_task import PipelineTask
from ..text import model_limits
from .encoder import Encoder

# Whose `_forward` calls the model once, with what the tokenizer made, and nothing more.
_KNOWN = ("transformers", "pipemill")

Inputs = dict[str, Any]


def make_token_outputs(declared: PipelineTask, loaded: Loaded) -> TokenOutputs | None:
    """None for a task whose model answers otherwise, and for a pipeline of the user's."""
    known = type(loaded.pipeline).__module__.partition(".")[0] in _KNOWN
    if not declared.token_outputs or not known:
        return None
    return TokenOutputs(
        loaded.pipeline, declared.token_outputs, declared.reads, compiles=loaded.compiles
    )


class TokenOutputs:
    """The model runs once, on all chunks' tokens; then `_forward` runs for each of them, its
    model answering with that chunk's share."""

    def __init__(
        self, pipeline: Any, outputs: tuple[str, ...], reads: str, compiles: bool = False
    ) -> None:
        self.pipeline, self.outputs, self.reads = pipeline, outputs, reads
        self.encoder = Encoder(pipeline, reads, outputs, compiles)
        self.pads = not model_limits.needs_equal_sizes(pipeline)

    def __call__(self, chunks: list[tuple[Inputs, Inputs]]) -> list[Any]:
        """chunks: the inputs of `_forward`, each tensor of one row, and its keywords."""
        columns: dict[str, np.ndarray] = {
            name: np.concatenate([inputs[name][0].numpy() for inputs, _ in chunks])
            for name in ("input_ids", "token_type_ids")
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
            answer = self._placed(share, read)
            pipeline.model = lambda answer=answer, **inputs: answer
            outputs.append(pipeline._forward(inputs, **keywords))
        return outputs

    def _is_read(self, ids: np.ndarray) -> np.ndarray:
        if self.reads == "masks":
            return ids == self.pipeline.tokenizer.mask_token_id
        return np.ones(len(ids), dtype=bool)

    def _placed(self, share: Any, read: np.ndarray) -> dict[str, Any]:
        """The model's outputs for a chunk, of shape (1, tokens, …).

        What lies where no token is read is never looked at, nor filled: the logits of a
        vocabulary for a whole text would be a hundred times more to write than for its masks.
        """
        import torch

        whole = share
        if not read.all():
            whole = share.new_empty((len(read), *share.shape[1:]))
            whole[torch.from_numpy(read)] = share
        parts = whole.unbind(-1) if len(self.outputs) > 1 else [whole]
        return {name: part[None] for name, part in zip(self.outputs, parts, strict=True)}


def without_padding(inputs: Inputs) -> Inputs:
    """A chunk's tensors, of shape (1, tokens, …), as if its tokenizer had not been asked to pad."""
    mask = inputs.get("attention_mask")
    if mask is None or mask.all():
        return inputs
    real = mask[0].bool()
    return {
        name: value[:, real] if getattr(value, "shape", ())[:2] == mask.shape else value
        for name, value in inputs.items()
    }
