"""Write many texts at once: a text that ends leaves, and one that waits takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from pipemill.actors.faults.blame import is_out_of_memory, is_row_error
from pipemill.actors.faults.watchdog import mark_progress
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from ..base import Values
from .slot_cache import SlotCache
from .token_choice import Rules, Sequence, append_tokens

# Texts in flight: more of them cost a step little until the linear layers are full.
_MOST = {"cpu": 128}
_MOST_ELSEWHERE = 256
# Tokens of a forward pass over prompts, with padding.
_PROMPT_TOKENS = {"cpu": 2048}
_PROMPT_TOKENS_ELSEWHERE = 32768
# The memory of their keys and values: so many bytes, or a share of what a GPU has left.
_CACHE_BYTES = 2 * 2**30
_CACHE_SHARE = 0.5
# What the memory for a text's columns is planned for, as its columns then: it grows.
_GROWTH = 1.5
# Texts begin when at least this share of the places is free: their first pass takes as long as a
# step of all others.
_FREE_SHARE = 1 / 8
# A beginning that prompts share is computed once if it has so many tokens.
_LEAST_SHARED = 16
_WAIT_S = 0.05

# What a step needs of what `generate` prepared, and what it makes itself.
_KEPT = ("use_cache", "logits_to_keep", "output_attentions", "output_hidden_states")
_MADE = (
    "attention_mask", "position_ids", "past_key_values", "encoder_outputs",
    "decoder_attention_mask",
)  # fmt: skip

Begin = Callable[[list[Sequence], Callable[..., Any]], None]


class UnsupportedModel(TypeError):
    """A model whose texts can't be written in slots."""


class DecodingLoop:
    """The texts that one model writes at a time, of however many callers.

    Callers are threads. One of them computes the steps for all, until its own texts are written;
    then another one goes on.

    begin: calls `generate` for some sequences of equal settings, with a function in place of its
        loop, and keeps what the pipeline returns in their `output`.
    """

    def __init__(self, pipeline: Any, begin: Begin) -> None:
        self.pipeline, self.model, self.begin = pipeline, pipeline.model, begin
        device = pipeline.device
        self.most = _MOST.get(device.type, _MOST_ELSEWHERE)
        self.prompt_tokens = _PROMPT_TOKENS.get(device.type, _PROMPT_TOKENS_ELSEWHERE)
        self.is_decoder = not self.model.config.is_encoder_decoder
        # Where positions are counted from the cache's first column, all texts must begin together.
        self.joins_late = self.is_decoder or _has_relative_positions(self.model)
        self.slots = SlotCache(device)
        self.cache_bytes = _find_cache_bytes(device)
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self.steps = 0
        self._has_positions = False
        self._kept: Values = {}
        self._prefix: tuple[list[int], Any] = ([], None)
        self._computes = threading.Lock()
        self._changes = threading.Condition()

    def write(self, sequences: list[Sequence], most: int | None = None) -> None:
        """Write these texts: each has an output afterwards, which may be an exception.

        most: of all texts, how many at a time, while this call computes.
        """
        with self._changes:
            self.waiting += sequences
            # The longest first: they fill the memory most.
            self.waiting.sort(key=lambda one: -_length(one))
        self._prepare_prefix(sequences)
        seen = -1
        while not all(one.is_done for one in sequences):
            if self._computes.acquire(blocking=False):
                try:
                    self._compute(sequences, most)
                finally:
                    self._computes.release()
                    with self._changes:
                        self._changes.notify_all()
                continue
            with self._changes:
                self._changes.wait(_WAIT_S)
            if seen != self.steps:  # of the thread that computes
                seen = self.steps
                mark_progress()

    def _compute(self, sequences: list[Sequence], most: int | None) -> None:
        with self.pipeline.device_placement(), torch.no_grad():
            while not all(one.is_done for one in sequences):
                try:
                    self._admit(min(self.most, most or self.most))
                    if self.running:
                        self._step()
                except BaseException as error:
                    self._recover(error)
                self.steps += 1
                mark_progress()

    def _recover(self, error: BaseException) -> None:
        """Free all slots, and go on with fewer of them if the memory was too small."""
        running, self.running = self.running, []
        self.slots.clear()
        if not is_out_of_memory(error) or self.most == 1:
            if not is_row_error(error) and not is_out_of_memory(error):
                for one in running:
                    one.restart()
                with self._changes:
                    self.waiting[:0] = running
                raise error
            for one in running:
                one.output, one.is_done = error, True  # type: ignore[assignment]
            return
        self.most = max(min(self.most, len(running)) // 2, 1)
        for one in running:
            one.restart()
        with self._changes:
            self.waiting[:0] = running

    def _admit(self, most: int) -> None:
        """Begin texts that wait, if there is room for enough of them."""
        free = min(most, self._count_places()) - len(self.running)
        if not self.waiting or (self.running and not self.joins_late):
            return
        if self.running and free < max(most * _FREE_SHARE, 1):
            return
        while free > 0 and self.waiting:
            group = self._take_group(free)
            free -= len(group)
            self.running += self._begin_group(group)

    def _count_places(self) -> int:
        """Return how many texts the memory has room for, at least one."""
        longest = max([self.slots.width, *map(_length, self.waiting[:1])])
        each = _GROWTH * longest * self.slots.column_bytes
        return max(int(self.cache_bytes / each), 1) if each else self.most

    def _take_group(self, most: int) -> list[Sequence]:
        """Take sequences from the front whose prompts may share a forward pass."""
        with self._changes:
            first = self.waiting[0]
            key, longest = _group(first), _length(first)
            most = min(most, max(self.prompt_tokens // max(longest, 1), 1))
            taken = [one for one in self.waiting if _group(one) == key][:most]
            chosen = set(map(id, taken))
            self.waiting = [one for one in self.waiting if id(one) not in chosen]
        return taken

    def _begin_group(self, group: list[Sequence]) -> list[Sequence]:
        """Compute the prompts and their first tokens; return the sequences that go on."""
        try:
            self.begin(group, lambda *given, **more: self._fill(group, *given, **more))
        except Exception as error:
            if is_out_of_memory(error) and len(group) > 1:
                self.prompt_tokens = max(self.prompt_tokens // 2, 1)
            elif not is_row_error(error):
                with self._changes:
                    self.waiting[:0] = group
                raise
            if len(group) == 1:
                group[0].output, group[0].is_done = error, True
                return []
            return [one for alone in group for one in self._begin_group([alone])]
        return [one for one in group if not one.is_done]

    def _fill(
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
        self._check(prepared)
        rules = Rules.of(logits_processor, stopping_criteria, generation_config, input_ids.shape[1])
        kept = {name: prepared[name] for name in _KEPT if name in prepared}
        if self.is_decoder:
            outputs, lengths, shared = self._fill_decoder(group, prepared, kept)
        else:
            shared, lengths = 0, [input_ids.shape[1]] * len(group)
            inputs = self.model.prepare_inputs_for_generation(
                input_ids,
                is_first_iteration=True,
                past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
                attention_mask=prepared["attention_mask"],
                encoder_outputs=prepared["encoder_outputs"],
                **kept,
            )
            outputs = self.model(**inputs, return_dict=True)
            for one in group:
                one.ids = input_ids[0].tolist()
        for one in group:
            one.rules = rules
        append_tokens(group, outputs.logits[:, -1])
        self._kept, self._has_positions = kept, prepared.get("position_ids") is not None
        mask = None if self.is_decoder else prepared["attention_mask"]
        on = [i for i, one in enumerate(group) if not one.is_done]
        if on:
            filled = outputs.past_key_values
            if len(on) < len(group):
                index = torch.tensor(on, device=self.slots.device)
                filled.batch_select_indices(index)
                mask = None if mask is None else mask[index]
            self.slots.add(filled, [lengths[i] for i in on], shared, mask)
        return input_ids

    def _fill_decoder(
        self, group: list[Sequence], prepared: Values, kept: Values
    ) -> tuple[Any, list[int], int]:
        """Compute prompts; return the outputs, the prompts' lengths, and the tokens they share."""
        for one in group:
            one.ids = one.inputs["input_ids"][0].tolist()
        lengths = [len(one.ids) for one in group]
        prefix, cache = self._prefix
        if not all(
            one.ids[: len(prefix)] == prefix and len(one.ids) > len(prefix) for one in group
        ):
            prefix = []
        shared, rest = len(prefix), max(lengths) - len(prefix)
        device, count = self.slots.device, len(group)
        ids = torch.zeros((count, rest), dtype=torch.long)
        mask = torch.zeros((count, shared + rest), dtype=torch.long)
        mask[:, :shared] = 1
        for row, one in enumerate(group):
            own = one.ids[shared:]
            ids[row, rest - len(own) :] = torch.tensor(own)
            mask[row, shared + rest - len(own) :] = 1
        more = dict(kept)
        if prepared.get("position_ids") is not None:
            places = (mask.cumsum(-1) - 1).clamp(min=0)
            more["position_ids"] = places[:, shared:].to(device)
        inputs = self.model.prepare_inputs_for_generation(
            ids.to(device),
            is_first_iteration=True,
            past_key_values=_repeat(cache, count) if shared else DynamicCache(),
            attention_mask=mask.to(device),
            **more,
        )
        return self.model(**inputs, return_dict=True), lengths, shared

    def _step(self) -> None:
        """Write a token of each text in flight."""
        running, slots = self.running, self.slots
        ids = torch.tensor([[one.ids[-1]] for one in running], device=slots.device)
        more = dict(self._kept)
        cache = slots.for_step()
        if self.is_decoder:
            more["attention_mask"] = slots.mask()
            if self._has_positions:
                more["position_ids"] = torch.tensor(slots.lengths, device=slots.device)[:, None]
        else:
            read = slots.encoder_mask()
            assert read is not None
            # Their keys and values are in the cache: only the shape is looked at.
            width = self.model.config.hidden_size
            states = torch.zeros(1, dtype=self.model.dtype, device=slots.device)
            more["encoder_outputs"] = (states.expand(*read.shape, width),)
            more["attention_mask"] = read
            if self.joins_late:
                more["decoder_attention_mask"] = slots.mask()
        inputs = self.model.prepare_inputs_for_generation(
            ids, next_sequence_length=1, past_key_values=cache, **more
        )
        logits = self.model(**inputs, return_dict=True).logits[:, -1]
        slots.advance()
        append_tokens(running, logits)
        for slot in range(len(running) - 1, -1, -1):
            if running[slot].is_done:
                slots.remove(slot)
                running[slot] = running[-1]
                running.pop()

    def _prepare_prefix(self, sequences: list[Sequence]) -> None:
        """Compute what all prompts begin with, if that is long."""
        if not self.is_decoder or len(sequences) < 4 or _has_windows(self.model):
            return
        prompts = [one.inputs["input_ids"][0].tolist() for one in sequences]
        one, other = min(prompts), max(prompts)
        shortest = min(map(len, prompts)) - 1  # a prompt's last token is computed
        shared = 0
        while shared < shortest and one[shared] == other[shared]:
            shared += 1
        if shared < _LEAST_SHARED or self._prefix[0] == one[:shared]:
            return
        with self._computes, self.pipeline.device_placement(), torch.no_grad():
            ids = torch.tensor([one[:shared]], device=self.slots.device)
            outputs = self.model(ids, past_key_values=DynamicCache(), use_cache=True)
            self._prefix = one[:shared], outputs.past_key_values

    def _check(self, prepared: Values) -> None:
        """Raise UnsupportedModel if a step needs more than is made here."""
        cache = prepared.get("past_key_values")
        own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        kinds = {type(layer).__name__ for layer in getattr(own, "layers", [None])}
        if not kinds <= {"DynamicLayer", "DynamicSlidingWindowLayer"}:
            raise UnsupportedModel(f"a cache of {', '.join(sorted(kinds))}")
        for name, value in prepared.items():
            if name not in (*_KEPT, *_MADE) and isinstance(value, torch.Tensor):
                raise UnsupportedModel(f"an input {name}")
        places = prepared.get("position_ids")
        if places is not None and places.dim() != 2:
            raise UnsupportedModel("positions of several axes")


def _length(one: Sequence) -> int:
    return int(one.inputs["input_ids"].shape[-1])


def _group(one: Sequence) -> Any:
    return one.settings, one.needs_length and _length(one)


def _find_cache_bytes(device: torch.device) -> float:
    if device.type != "cuda":
        return _CACHE_BYTES
    return torch.cuda.mem_get_info(device)[0] * _CACHE_SHARE


def _repeat(cache: Any, count: int) -> DynamicCache:
    repeated = DynamicCache()
    for i, layer in enumerate(cache.layers):
        shape = (count, -1, -1, -1)
        repeated.update(layer.keys.expand(*shape), layer.values.expand(*shape), i)
    return repeated


def _has_relative_positions(model: Any) -> bool:
    names = {name.rpartition(".")[2] for name, _ in model.get_decoder().named_modules()}
    return "relative_attention_bias" in names and "embed_positions" not in names


def _has_windows(model: Any) -> bool:
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) != {"full_attention"} or getattr(config, "sliding_window", None) is not None
