"""Texts of any number of rows, as many at a time as pay, whatever their lengths and settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers.generation import StoppingCriteriaList, StopStringCriteria

from ..base import Prompt, Values
from ..stacking import copy_kwargs, unstack
from .batched_generation import MINDS_PADDING, BatchedGeneration, count_tokens, is_harmless
from .decoding_loop import DecodingLoop
from .token_choice import Sequence

# Settings with which `generate` does other than choose one token after the other.
OTHER_LOOPS = (
    *MINDS_PADDING, "penalty_alpha", "constraints", "force_words_ids", "dola_layers",
    "num_beam_groups", "return_dict_in_generate", "output_scores", "output_logits",
    "token_healing", "streamer", "custom_generate", "low_memory", "is_assistant", "generation_mode",
)  # fmt: skip
# Settings that count from the end of a prompt, and would count a decoder's padding.
_MINDS_LENGTH = (
    "min_length", "min_new_tokens", "exponential_decay_length_penalty", "begin_suppress_tokens",
    "forced_bos_token_id", "forced_eos_token_id", "forced_decoder_ids",
)  # fmt: skip


class ContinuousGeneration(BatchedGeneration):
    """Generates with a pipeline's own model; `DecodingLoop` stands in for `generate`'s loop."""

    def __init__(self, pipeline: Any, written: str) -> None:
        super().__init__(pipeline, written)
        self.loop = DecodingLoop(pipeline, self._begin)

    def schedules(self, keywords: Values) -> bool:
        settings = self._merge_settings(keywords)
        plain = all(is_harmless(name, settings.get(name)) for name in OTHER_LOOPS)
        beams, wanted = _count_beams(settings), settings.get("num_return_sequences") or 1
        searches = beams > 1 and not settings.get("do_sample") and wanted <= beams
        suits = searches or (beams == 1 and wanted == 1)
        return plain and suits and settings.get("use_cache") is not False

    def joins(self, prompt: Prompt) -> bool:
        return self._find_scale(prompt) is not None

    def pause(self) -> AbstractContextManager[None]:
        switches = self.positions or self.in_blocks or self.loop.decoder.adapters.layers
        return self.loop.pause() if switches else nullcontext()

    def reads_more(self, inputs: Values) -> bool:
        arrays = {name for name, value in inputs.items() if hasattr(value, "shape")}
        return inputs.get("input_ids") is None or not arrays <= {"input_ids", "attention_mask"}

    def write_all(self, prompts: list[Prompt], most: int | None = None) -> list[Values | Exception]:
        adapted = bool(self.loop.decoder.adapters.layers)
        sequences = [
            Sequence(
                inputs=one.inputs,
                keywords=one.keywords,
                settings=one.settings,
                seed=one.seed,
                begins_alone=one.load is not None,
                load=one.load,
                needs_length=self._needs_length(one.keywords),
                beams=_count_beams(self._merge_settings(one.keywords)),
                scale=self._find_scale(one) or 0,
                adapts=adapted and one.load is not None,
            )
            for one in prompts
        ]
        self.loop.write(sequences, most)
        return [self._answer(one) for one in sequences]

    def _needs_length(self, keywords: Values) -> bool:
        """Tell whether only prompts of equal length may begin together."""
        if not self.after_prompt:
            return self.in_blocks
        settings = self._merge_settings(keywords)
        if settings.get("max_new_tokens") is None and settings.get("max_length") is not None:
            return True
        return any(settings.get(name) not in (None, 0) for name in _MINDS_LENGTH)

    def _find_scale(self, prompt: Prompt) -> int | None:
        """Return which texts may be computed together with this one; None if none may."""
        if self.positions is None:
            return 0
        settings, length = self._merge_settings(prompt.keywords), count_tokens(prompt.inputs)
        new, most = settings.get("max_new_tokens"), settings.get("max_length")
        return self.positions.find_scale(length, most if new is None else length + new)

    def _begin(self, group: list[Sequence], fill: Callable[..., Any]) -> None:
        load = group[0].load
        inputs = load() if load else self._stack([one.inputs for one in group])
        given = copy_kwargs(group[0].keywords)
        keywords = given.setdefault("generate_kwargs", {}) if self.nests else given
        keywords["custom_generate"] = fill
        if strings := self._merge_settings(keywords).get("stop_strings"):
            # With a function in place of its loop `generate` takes no tokenizer for them.
            tokenizer = keywords.pop("tokenizer", None) or self.pipeline.tokenizer
            ends = StopStringCriteria(tokenizer, strings)
            keywords |= {"stop_strings": None, "stopping_criteria": StoppingCriteriaList([ends])}
        together = self.pipeline.forward(inputs, **given)
        if load:
            group[0].output = together
            return
        for one, output in zip(group, unstack(together, len(group)), strict=True):
            one.output = output

    def _answer(self, one: Sequence) -> Values | Exception:
        if isinstance(one.output, Exception):
            return one.output
        assert one.output is not None
        found = torch.tensor(one.found)
        if not self.written:
            return found
        if one.output[self.written].dim() > 2:
            found = found[None]
        output = {**one.output, self.written: found}
        if output.get("input_ids") is not None:
            output["input_ids"] = one.inputs["input_ids"]
        return output


def _count_beams(settings: Values) -> int:
    return settings.get("num_beams") or 1
