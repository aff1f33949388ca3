"""A pipeline's `_forward` for recordings of any length at once, where its model hears a mask."""

from __future__ import annotations

import copy
import pickle
from typing import Any

from .pickled_chunks import Chunk, pickle_chunk
from .token_outputs import calls_model_once

Inputs = dict[str, Any]

_MASK = "attention_mask"
_CUT = 8  # so much shorter are some recordings of a first try
_TYPES = ("ctc", "ctc_with_lm")  # of speech recognition; other types write


class RecordingOutputs:
    """The outputs of `_forward` for several recordings, from one call of the model.

    The model runs once, on all recordings, filled up to the longest; then `_forward` runs for each
    of them, its model answering with that recording's share.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    @staticmethod
    def suits(pipeline: Any) -> bool:
        """Tell whether a pipeline's model may answer the same for a recording that is filled up.

        A feature extractor that gives no mask is that of a model for which it would not.
        """
        extractor = pipeline.feature_extractor
        return (
            calls_model_once(pipeline)
            and getattr(pipeline, "type", _TYPES[0]) in _TYPES
            and not pipeline.model.can_generate()
            and bool(getattr(extractor, "return_attention_mask", False))
            and hasattr(pipeline.model, "_get_feat_extract_output_lengths")
            # It takes the mean of a whole recording, and of what fills it up.
            and getattr(pipeline.model.config, "feat_extract_norm", None) != "group"
        )

    @staticmethod
    def pays(pipeline: Any) -> bool:
        """Tell whether several at once are faster: a CPU has enough to do with one of them."""
        return bool(pipeline.device.type != "cpu")

    def vary_lengths(self, chunks: list[Chunk]) -> list[Chunk]:
        """Return the chunks, of every other one the beginning.

        Recordings of nearly one length would not show what a model makes of what fills them up.
        """
        return [
            (self._cut(one), own) if i % 2 else (one, own) for i, (one, own) in enumerate(chunks)
        ]

    def _cut(self, payload: bytes) -> bytes:
        inputs, name = pickle.loads(payload), self.pipeline.model.main_input_name
        end = inputs[name].shape[1] // _CUT
        if self._count_frames([end])[0] < 2:  # SEW makes one of two
            return payload
        return pickle_chunk({**inputs, **{k: inputs[k][:, :end] for k in (name, _MASK)}})

    def _count_frames(self, lengths: list[int]) -> list[int]:
        import torch

        count = self.pipeline.model._get_feat_extract_output_lengths
        return [int(n) for n in count(torch.tensor(lengths))]

    def __call__(self, chunks: list[tuple[Inputs, Inputs]]) -> list[Any]:
        """Return what `_forward` returns for each recording.

        Args:
            chunks: the inputs of `_forward`, of which the recording has the shape (1, length, …),
                and its keywords.

        Raises:
            ValueError: A recording among several is too short for the model.
        """
        if len(chunks) == 1:
            ((inputs, keywords),) = chunks
            return [self.pipeline.forward(inputs, **keywords)]
        lengths = [inputs[self.pipeline.model.main_input_name].shape[1] for inputs, _ in chunks]
        logits, frames = self._call_model([inputs for inputs, _ in chunks], lengths)
        outputs = []
        # A copy: another thread may be at `postprocess`, and look at the model's configuration.
        pipeline = copy.copy(self.pipeline)
        for i, (inputs, keywords) in enumerate(chunks):
            share = logits[i : i + 1]
            if share.dim() == 3:  # an answer for each frame
                share = share[:, : frames[i]].clone()
            pipeline.model = _AnsweredModel(self.pipeline.model, share)
            outputs.append(pipeline._forward(inputs, **keywords))
        return outputs

    def _call_model(self, several: list[Inputs], lengths: list[int]) -> tuple[Any, list[int]]:
        """Return the logits, of shape (recordings, frames, …), and the frames of each recording."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        model, device = self.pipeline.model, self.pipeline.device
        name = model.main_input_name
        frames = self._count_frames(lengths)
        if min(frames) < 1:
            raise ValueError("the recording is too short for the model")
        masks = [inputs[_MASK][0] for inputs in several]
        filling = float(getattr(self.pipeline.feature_extractor, "padding_value", 0.0))
        filled = pad_sequence([inputs[name][0] for inputs in several], True, filling)
        given = {name: filled.to(device), _MASK: pad_sequence(masks, True).to(device)}
        with torch.inference_mode(), self.pipeline.device_placement():
            return model(**given).logits.cpu(), frames


class _AnsweredModel:
    """A model that answers with what it has computed before."""

    def __init__(self, model: Any, logits: Any) -> None:
        self._model, self._logits = model, logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **inputs: Any) -> Any:
        from transformers.modeling_outputs import CausalLMOutput

        return CausalLMOutput(logits=self._logits)
