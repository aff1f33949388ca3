"""Texts of several rows written at once: prompts are padded, and the padding taken out again."""

from __future__ import annotations

import inspect
from dataclasses import fields
from functools import cached_property
from typing import Any

from ...text.model_limits import ScaledPositions
from ..base import GenerationEngine, Values
from ..stacking import copy_kwargs, unstack
from ..text_length import attends_in_blocks

# Settings that only one row at a time may have, or that look at the tokens of the prompt: those of
# a padded one would be others.
MINDS_PADDING = (
    "encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "prompt_lookup_num_tokens",
    "assistant_model", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn",
    "guidance_scale", "watermarking_config",
)  # fmt: skip
# The same of a decoder, to which its prompt is the beginning of what it writes.
_MINDS_PROMPT = (
    *MINDS_PADDING, "max_length", "min_length", "repetition_penalty", "no_repeat_ngram_size",
    "penalty_alpha", "sequence_bias", "constraints",
)  # fmt: skip
_HARMLESS = (None, False, 0, 1)
_IDS, _MASK = "input_ids", "attention_mask"


def is_harmless(name: str, value: Any) -> bool:
    """Tell whether a setting has the value with which it does nothing."""
    # No token twice, that is.
    return value in _HARMLESS and not (value == 1 and name.endswith("no_repeat_ngram_size"))


class BatchedGeneration(GenerationEngine):
    """Generates with a pipeline's own model, from several prompts at once.

    written: the name under which `_forward` returns token ids, of shape (rows, sequences, tokens)
        or (rows, tokens); empty if it returns nothing else. A decoder's begin with the prompt.

    Attributes:
        positions: how a decoder's positions depend on the text's length, if they do.
        in_blocks: whether the model's attention does.
    """

    is_exact = False

    def __init__(self, pipeline: Any, written: str) -> None:
        self.pipeline, self.written = pipeline, written
        config = pipeline.model.config
        self.after_prompt = not config.is_encoder_decoder
        self.positions = ScaledPositions.of(config.get_text_config(decoder=True))
        self.in_blocks = attends_in_blocks(pipeline.model)
        # Some pipelines take the keywords of `generate` in a dictionary.
        named = inspect.signature(pipeline._forward).parameters.get("generate_kwargs")
        self.nests = named is not None and named.kind is not named.VAR_KEYWORD

    def samples(self, keywords: Values) -> bool:
        return bool(self._merge_settings(keywords).get("do_sample"))

    def can_pad(self, keywords: Values) -> bool:
        if self.positions or self.in_blocks:
            return False
        settings = self._merge_settings(keywords)
        if settings.get("max_new_tokens") is not None:
            settings["max_length"] = None  # counts for nothing beside it
        minds = _MINDS_PROMPT if self.after_prompt else MINDS_PADDING
        return all(is_harmless(name, settings.get(name)) for name in minds)

    def generate(self, prompts: list[Values], keywords: Values) -> list[Values]:
        together = self.pipeline.forward(self._stack(prompts), **copy_kwargs(keywords))
        return self._unstack(unstack(together, len(prompts)), prompts, keywords)

    def select_read(self, output: Any) -> Any:
        """Leave out what `generate` can return beside the ids: keys, values and attention.

        Those of a document, read by Donut, take 150 MB.
        """
        # Here: the driver imports this module without torch.
        from transformers.generation.utils import GenerateEncoderDecoderOutput

        unread = {one.name for one in fields(GenerateEncoderDecoderOutput)} - {self.written}
        return {name: value for name, value in output.items() if name not in unread}

    def _stack(self, inputs: list[Values]) -> Values:
        """Return one input of several, each of one row: a decoder goes on at the right end."""
        import torch

        lengths = list(map(count_tokens, inputs))
        fill = {_IDS: self.pipeline.tokenizer.pad_token_id, _MASK: 0}
        together: Values = {}
        for name, value in inputs[0].items():
            if not isinstance(value, torch.Tensor):
                together[name] = [one[name] for one in inputs]
                continue
            rows = []
            for one, length in zip(inputs, lengths, strict=True):
                missing = max(lengths) - length  # none where images or sound come with the tokens
                side = (missing, 0) if self.after_prompt else (0, missing)
                rows.append(torch.nn.functional.pad(one[name], side, value=fill.get(name, 0)))
            together[name] = torch.cat(rows)
        return together

    def _unstack(
        self, outputs: list[Values], inputs: list[Values], keywords: Values
    ) -> list[Values]:
        """Return what each output would have been alone."""
        settings = self._merge_settings(keywords)
        longest, alone = max(map(count_tokens, inputs)), []
        for output, one in zip(outputs, inputs, strict=True):
            length = count_tokens(one)
            padding = longest - length if self.after_prompt else 0
            # A decoder beside an encoder begins with one token that says so.
            begin = length if self.after_prompt else 1
            written: Any = output[self.written] if self.written else output
            written = self._trim(written[..., padding:], begin, settings)
            if self.written:
                output[self.written] = written
                if _IDS in output:
                    output[_IDS] = one[_IDS]
            alone.append(output if self.written else written)
        return alone

    def _trim(self, written: Any, begin: int, settings: Values) -> Any:
        """Return the ids without those that fill a row up until the longest of the others ends.

        These follow an end token. Their values don't tell: a text may hold the same tokens.

        begin: where the written text begins.
        """
        ends = settings.get("eos_token_id")
        ends = ends if isinstance(ends, list) else [ends]
        fill = settings.get("pad_token_id")
        fill = self.pipeline.tokenizer.pad_token_id if fill is None else fill
        if not fill and (settings.get("num_beams") or 1) > 1:  # to transformers, 0 is none there
            fill = ends[0]
        lengths = []
        for sequence in written.flatten(0, -2).tolist():
            last = max((i for i, token in enumerate(sequence) if token != fill), default=-1)
            # A model inside the model may have other end tokens: it goes on after one of these.
            places = (i for i in range(max(begin, last), len(sequence)) if sequence[i] in ends)
            end = next(places, None)
            if end is None and settings.get("stop_strings"):  # it may have ended without a token
                end = last
            lengths.append(len(sequence) if end is None else end + 1)
        return written[..., : max(lengths)]

    @cached_property
    def _model_settings(self) -> Values:
        """Return what the model's own config says; finding it takes some milliseconds."""
        settings: Values = self.pipeline._get_set_generation_params({})
        return settings

    def _merge_settings(self, keywords: Values) -> Values:
        """Return what the call says, over what the pipeline or its model generates with."""
        if self.nests:
            keywords = keywords.get("generate_kwargs") or {}
        restored = getattr(self.pipeline, "generation_config", None)
        if restored is None:
            given = {**self._model_settings, **keywords}
            if keywords.get("generation_config") is not None:
                given = self.pipeline._get_set_generation_params(dict(keywords))
            usual = {**self.pipeline._generation_defaults, **given}
            if "max_length" in given:  # a default of the pipeline's gives way to it
                usual["max_new_tokens"] = given.get("max_new_tokens")
        else:
            usual = dict(vars(keywords.get("generation_config") or restored))
        return {**usual, **keywords}


def count_tokens(inputs: Values) -> int:
    """Return the tokens of a prompt; 0 for an image without any."""
    ids = inputs.get(_IDS)
    return 0 if ids is None else int(ids.shape[1])
