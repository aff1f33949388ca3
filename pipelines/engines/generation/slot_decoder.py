"""Compute prompts, and one token after the other, for texts that keep their slots in a cache."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from pipemill.actors.device_transfer import to_device
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.generation.utils import ALL_CACHE_NAMES
from transformers.modeling_outputs import BaseModelOutput

from ...text.model_limits import count_positions, explain_too_long
from ..base import UnsupportedPrompt, Values
from ..model_call import tell_masks
from .beam_search import extend_beams
from .slot_cache import Move, SlotCache
from .slot_layer import are_layers_held, make_cache, repeat_cache
from .step_hooks import AdapterSwitch, StepHooks
from .token_choice import Rules, Sequence, append_tokens

# "cache" since transformers 5.24, "past_key_values" before.
CACHE = ALL_CACHE_NAMES[0]
# What a step needs of what `generate` prepared, and what it makes itself.
_KEPT = ("use_cache", "logits_to_keep", "output_attentions", "output_hidden_states")
_MADE = (
    "attention_mask", "position_ids", CACHE, "encoder_outputs", "decoder_attention_mask"
)  # fmt: skip
# Of what a written token is, where a model's inputs say it: a text, or as the prompt's last token.
_TYPES = ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")
# What describes media, which says nothing in a step that does not get these.
_DESCRIBED = {
    "feature_attention_mask": "input_features",
    "image_token_pooling": "pixel_values",
    "image_grids": "pixel_values",
    "image_num_crops": "pixel_values",
    "second_per_grid_ts": "pixel_values_videos",
    "video_compression_mask": "pixel_values_videos",
}
# Phi-4's media: a step gets them again, and has no token that shows one.
_SHOWN = (
    "image_pixel_values", "image_sizes", "image_attention_mask", "audio_input_features",
    "audio_embed_sizes", "audio_attention_mask",
)  # fmt: skip


class SlotDecoder:
    """A model that writes, and the slots of the texts that it writes now.

    Attributes:
        is_decoder: whether its prompts are the beginning of what it writes.
        joins_late: whether a text may begin while others run.
        shares: whether what prompts begin with may be computed once.
        adapters: what `generate` turns on or off for some prompts.
    """

    def __init__(self, pipeline: Any) -> None:
        self.model = pipeline.model
        self.slots = SlotCache(pipeline.device)
        self.is_decoder = not self.model.config.is_encoder_decoder
        self.hooks = None if self.is_decoder else StepHooks(self.model)
        self.adapters = AdapterSwitch(self.model)
        # Where positions are counted from the cache's first column, all texts must begin together.
        self.joins_late = (
            self.hooks is None or self.hooks.sets_positions or _has_relative_positions(self.model)
        )
        self.shares = self.is_decoder and not _has_windows(self.model)
        self.limit = count_positions(self.model if self.is_decoder else self.model.get_decoder())
        self._has_positions = False
        self._kept: Values = {}
        # What an encoder read, of one token, and whether a mask says what that is of each text.
        self._read, self._has_mask = torch.zeros(1, 1, 1), True
        # What the last prompts began with, and its keys and values.
        self._beginning: tuple[tuple[int, ...], Any] = ((), None)

    def fill(
        self,
        group: list[Sequence],
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **prepared: Any,
    ) -> torch.Tensor:
        """Stand in for the loop of `generate`: compute the prompts, and take their slots."""
        rules = Rules.of(logits_processor, stopping_criteria, generation_config, input_ids.shape[1])
        beams = group[0].beams
        self._check(model, prepared, rules, beams)
        self.adapters.save()
        kept = {name: prepared[name] for name in _KEPT if name in prepared}
        mask, shared = None, 0
        if not group[0].load:  # else they are more than tokens
            self._check_tokens(prepared)
        if not self.is_decoder:
            input_ids = input_ids[::beams]  # `generate` repeats them for each beam
            outputs, lengths, mask = self._fill_beside_encoder(group, input_ids, prepared, kept)
        elif group[0].load:
            outputs, lengths = self._fill_one(group[0], input_ids, prepared)
        else:
            outputs, lengths, shared = self._fill_decoder(group, prepared, kept)
        for one in group:
            one.begin(rules)
        logits = outputs.logits[:, -1]
        self._append(group, logits if beams == 1 else logits.repeat_interleave(beams, 0))
        self._kept, self._has_positions = kept, prepared.get("position_ids") is not None
        on = [i for i, one in enumerate(group) if not one.is_done]
        if on:
            filled = outputs[CACHE]
            if len(on) < len(group):
                index = to_device(on, self.slots.device)
                filled.reorder_cache(index)
                mask = None if mask is None else mask[index]
            self.slots.add(filled, [lengths[i] for i in on], shared, mask, beams)
        return input_ids

    def _fill_beside_encoder(
        self, group: list[Sequence], input_ids: torch.Tensor, prepared: Values, kept: Values
    ) -> tuple[Any, list[int], torch.Tensor]:
        """Compute the beginnings of what a decoder writes after what an encoder read.

        Return the outputs, the beginnings' lengths, and the mask of what was read.
        """
        beams = group[0].beams
        read, mask = prepared["encoder_outputs"][0][::beams], prepared.get("attention_mask")
        given = {} if mask is None else {"attention_mask": mask[::beams]}
        self._read, self._has_mask = read[:1, :1].clone(), mask is not None
        inputs = self.model.prepare_inputs_for_generation(
            input_ids,
            is_first_iteration=True,
            encoder_outputs=BaseModelOutput(read),
            **{CACHE: EncoderDecoderCache(DynamicCache(), DynamicCache())},
            **given,
            **kept,
        )
        beginning = input_ids[0].tolist()
        for one in group:
            one.ids = list(beginning)
        lengths = [len(beginning)] * len(group)
        heard = given.get("attention_mask", read.new_ones(read.shape[:2], dtype=torch.long))
        return self.model(**inputs, return_dict=True), lengths, heard

    def _fill_one(
        self, one: Sequence, input_ids: torch.Tensor, prepared: Values
    ) -> tuple[Any, list[int]]:
        """Compute a prompt as `generate` prepared it; return the outputs, and its columns."""
        mask, places = prepared.get("attention_mask"), prepared.get("position_ids")
        if mask is not None and not mask.all():
            raise UnsupportedPrompt("a prompt with padding")
        if places is None:
            raise UnsupportedPrompt("positions that the model counts itself")
        given = {**prepared, CACHE: make_cache(prepared.get(CACHE))}
        inputs = self.model.prepare_inputs_for_generation(
            input_ids, is_first_iteration=True, **given
        )
        outputs = self.model(**inputs, return_dict=True)
        cache = outputs[CACHE]
        one.ids, length = input_ids[0].tolist(), cache.get_seq_length()
        if length != len(one.ids):  # GIT, which gets no mask of them
            raise UnsupportedPrompt("columns of what has no token")
        one.types = self._find_types(input_ids, prepared, cache)
        one.shift = tuple((places[..., 0, -1].flatten() + 1 - length).tolist())
        if one.beams > 1:  # it is prepared for each of them
            outputs.logits = outputs.logits[:: one.beams]
            cache.reorder_cache(torch.zeros(1, dtype=torch.long, device=self.slots.device))
        return outputs, [length]

    def _find_types(self, input_ids: torch.Tensor, prepared: Values, cache: Any) -> dict[str, int]:
        """Return the token types of what is written, if the model takes them in a step.

        Raise UnsupportedPrompt if it takes more than that of what was prepared.
        """
        more = {name: value for name, value in prepared.items() if name not in _MADE}
        inputs = self.model.prepare_inputs_for_generation(
            input_ids, next_sequence_length=1, **{CACHE: cache}, **more
        )
        types = {}
        for name, value in inputs.items():
            if name in _TYPES and value is not None:
                # As `generate` continues them.
                types[name] = int(prepared[name][0, -1]) if name == "token_type_ids" else 0
                continue
            needed = _DESCRIBED.get(name, name)
            known = name in (*_KEPT, *_SHOWN)
            if name in more and not known and isinstance(inputs.get(needed), torch.Tensor):
                raise UnsupportedPrompt(f"an input {name}")
        return types

    def _fill_decoder(
        self, group: list[Sequence], prepared: Values, kept: Values
    ) -> tuple[Any, list[int], int]:
        """Compute prompts; return the outputs, the prompts' lengths, and the tokens they share."""
        for one in group:
            one.ids = one.inputs["input_ids"][0].tolist()
        lengths = [len(one.ids) for one in group]
        cache, shared = make_cache(prepared.get(CACHE)), len(group[0].beginning)
        if cache.layers:  # some have states, which are not repeated
            shared = 0
        if shared:
            cache = repeat_cache(self._compute_beginning(group[0].beginning, kept), len(group))
        rest = max(lengths) - shared
        device, count = self.slots.device, len(group)
        ids = torch.zeros((count, rest), dtype=torch.long)
        mask = torch.zeros((count, shared + rest), dtype=torch.long)
        mask[:, :shared] = 1
        for row, one in enumerate(group):
            own = one.ids[shared:]
            ids[row, rest - len(own) :] = torch.tensor(own)
            mask[row, shared + rest - len(own) :] = 1
        more = dict(kept)
        if (given := prepared.get("position_ids")) is not None:
            places = (mask.cumsum(-1) - 1).clamp(min=0)
            more["position_ids"] = to_device(places[:, shared:].numpy(), device)
            if given.dim() > 2:  # a text's are the same on each axis
                more["position_ids"] = more["position_ids"].expand(len(given), -1, -1)
                for one in group:
                    one.shift = (0,) * len(given)
        there = to_device(mask.numpy(), device)
        more |= {"attention_mask": there, CACHE: cache}
        inputs = self._prepare(to_device(ids.numpy(), device), is_first_iteration=True, **more)
        with tell_masks((there, min(lengths) < max(lengths))):
            return self.model(**inputs, return_dict=True), lengths, shared

    def step(self, running: list[Sequence]) -> None:
        """Append a token to each text that runs; leave out the texts that end with it.

        running: in the order of their slots.
        """
        slots = self.slots
        self.adapters.restore()
        self._end_too_long(running)
        if not running:
            return
        ids = [text[-1:] for one in running for text in one.texts]
        more = {**self._kept, CACHE: slots.for_step()}
        mask, read = slots.mask(), None
        if self.is_decoder:
            more["attention_mask"] = mask
            if self._has_positions:
                more["position_ids"] = self._find_positions(running)
            for name in {name for one in running for name in one.types}:
                types = [[one.types.get(name, 0)] for one in running for _ in one.texts]
                more[name] = to_device(types, slots.device)
        else:
            read = slots.encoder_mask()
            # Their keys and values are in the cache: only the shape is looked at.
            more["encoder_outputs"] = BaseModelOutput(self._read.expand(*read.shape, -1))
            if self._has_mask:
                more["attention_mask"] = read
            if self.joins_late:
                more["decoder_attention_mask"] = mask
        inputs = self._prepare(to_device(ids, slots.device), next_sequence_length=1, **more)
        with (
            self.hooks.step(slots.positions(), slots.beams) if self.hooks else nullcontext(),
            tell_masks((mask, slots.hides), (read, slots.encoder_hides)),
        ):
            logits = self.model(**inputs, return_dict=True).logits[:, -1]
        slots.advance()
        moves = self._append(running, logits)
        slots.move((i, one) for i, each in enumerate(moves) for one in each)
        self._remove_done(running)

    def _remove_done(self, running: list[Sequence]) -> None:
        for place in range(len(running) - 1, -1, -1):
            if running[place].is_done:
                self.slots.remove(place)
                running[place] = running[-1]
                running.pop()

    def _end_too_long(self, running: list[Sequence]) -> None:
        """End texts whose next token has no position, with an error.

        On a GPU a position beyond the table would make the whole process fail.
        """
        if self.limit is None or max(self.slots.lengths, default=0) < self.limit:
            return
        for one, length in zip(running, self.slots.lengths, strict=True):
            if length >= self.limit:
                one.output, one.is_done = ValueError(explain_too_long(self.limit)), True
        self._remove_done(running)

    def _prepare(self, ids: torch.Tensor, **more: Any) -> Values:
        inputs: Values = self.model.prepare_inputs_for_generation(ids, **more)
        # EXAONE 4.5 drops them, to count columns.
        if inputs.get("position_ids", ids) is None:
            inputs["position_ids"] = more.get("position_ids")
        return inputs

    def _find_positions(self, running: list[Sequence]) -> torch.Tensor:
        """Return the positions of a step's tokens: with several axes, these come first."""
        lengths = zip(self.slots.lengths, running, strict=True)
        each = [[length + shift for shift in one.shift] for length, one in lengths]
        places = to_device(each, self.slots.device)
        places = places.repeat_interleave(self.slots.beams, 0).T[:, :, None]
        return places if len(places) > 1 else places[0]

    def _append(self, sequences: list[Sequence], logits: torch.Tensor) -> list[list[Move]]:
        """Append a token to each text. Return what moves within the slots of each sequence."""
        if sequences[0].search:
            return extend_beams(sequences, logits)
        append_tokens(sequences, logits)
        return []

    def _compute_beginning(self, tokens: tuple[int, ...], kept: Values) -> Any:
        """Return the keys and values of what prompts begin with."""
        if self._beginning[0] != tokens:
            ids = to_device([tokens], self.slots.device)
            outputs = self.model(ids, **{CACHE: DynamicCache()}, **kept)
            self._beginning = tokens, outputs[CACHE]
        return self._beginning[1]

    def _check(self, model: Any, prepared: Values, rules: Rules, beams: int) -> None:
        """Raise UnsupportedPrompt if a step needs more than is made here."""
        if type(model) is not type(self.model):
            raise UnsupportedPrompt("a model inside the model that writes")
        if beams != (rules.search.beams if rules.search else 1) or (beams > 1 and rules.samples):
            raise UnsupportedPrompt("settings with another number of beams")
        if beams > 1 and self.hooks and not self.hooks.shares_encoder:
            raise UnsupportedPrompt("attention to the encoder's output by an unknown name")
        if not are_layers_held(cache := prepared.get(CACHE)):
            raise UnsupportedPrompt(f"a {type(cache).__name__} with other layers")

    def _check_tokens(self, prepared: Values) -> None:
        """Raise UnsupportedPrompt if prompts are more than their tokens."""
        for name, value in prepared.items():
            if name not in (*_KEPT, *_MADE) and isinstance(value, torch.Tensor):
                raise UnsupportedPrompt(f"an input {name}")
        places = prepared.get("position_ids")
        if places is not None and places.dim() > 2 and (places != places[:1]).any():
            raise UnsupportedPrompt("positions of several axes")


def _has_relative_positions(model: Any) -> bool:
    names = {name.rpartition(".")[2] for name, _ in model.get_decoder().named_modules()}
    return "relative_attention_bias" in names and "embed_positions" not in names


def _has_windows(model: Any) -> bool:
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) != {"full_attention"} or getattr(config, "sliding_window", None) is not None
