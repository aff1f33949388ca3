"""Write many texts at once: a text that ends leaves, and one that waits takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from pipemill.actors.faults.blame import is_out_of_memory, is_row_error
from pipemill.actors.faults.watchdog import hold

from ..gpu_memory import find_free_bytes
from .shared_loop import SharedLoop
from .slot_decoder import SlotDecoder
from .token_choice import Sequence

# Texts in flight, each beam one: more cost a step little until the linear layers are full.
_MOST_ON_CPU, _MOST_ON_GPU = 128, 256
# Tokens of a forward pass over prompts, with padding.
_PROMPT_TOKENS_ON_CPU, _PROMPT_TOKENS_ON_GPU = 2048, 32768
# The memory of their keys and values: so many bytes, or a share of what a GPU has left.
_CACHE_BYTES = 2 * 2**30
_CACHE_SHARE = 0.5
# What the memory for a text's columns is planned for, as its columns then: it grows.
_GROWTH = 1.5
# Texts begin when at least this share of the places is free: their first pass takes as long as a
# step of all others.
_FREE_SHARE = 1 / 8
# A beginning that prompts share is computed once if it has so many tokens.
_LEAST_SHARED, _LEAST_SHARING = 16, 4

Begin = Callable[[list[Sequence], Callable[..., Any]], None]


class DecodingLoop:
    """The texts that one model writes at a time, of however many callers.

    begin: calls `generate` for some sequences of equal settings, with a function in place of its
        loop, and keeps what the pipeline returns in their `output`.
    """

    def __init__(self, pipeline: Any, begin: Begin) -> None:
        self.pipeline, self.begin = pipeline, begin
        device = pipeline.device
        on_cpu = device.type == "cpu"
        self.most = _MOST_ON_CPU if on_cpu else _MOST_ON_GPU
        self.prompt_tokens = _PROMPT_TOKENS_ON_CPU if on_cpu else _PROMPT_TOKENS_ON_GPU
        self.decoder = SlotDecoder(pipeline)
        self.slots = self.decoder.slots
        self.cache_bytes = _find_cache_bytes(device)
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self.steps = 0
        self._loop = SharedLoop()
        self._lock = threading.Lock()
        self._computing = threading.Lock()

    def write(self, sequences: list[Sequence], most: int | None = None) -> None:
        """Write these texts: each has an output afterwards, which may be an exception.

        most: of all texts, how many at a time, while this call computes: the texts are a first try,
            in which a model shows whether it hears a mask.
        """
        if self.decoder.shares:
            _find_beginning(sequences)
        with self._lock:
            # The longest first: they fill the memory most. A new list: one that is being sorted is
            # empty to the thread that computes.
            self.waiting = sorted([*self.waiting, *sequences], key=lambda one: -_count_tokens(one))
        # A model that counts columns itself has none to spare.
        if spoils := most is not None and self.decoder.joins_late:
            self.slots.spoil(True)
        try:
            self._loop.run(
                lambda: self._compute(most or self.most),
                lambda: all(one.is_done for one in sequences),
            )
        finally:
            if spoils:
                self.slots.spoil(False)

    def _compute(self, most: int) -> None:
        """Begin texts, and write a token of each."""
        self.steps += 1
        with hold(self._computing), self.pipeline.device_placement(), torch.no_grad():
            try:
                self._admit(most)
                if self.running:
                    self.decoder.step(self.running)
            except BaseException as error:
                self._recover(error)

    def pause(self) -> AbstractContextManager[None]:
        """Compute nothing inside the block."""
        return hold(self._computing)

    def _recover(self, error: BaseException) -> None:
        """Free all slots, and write their texts again: fewer at a time if memory ran out."""
        running, self.running = self.running, []
        self.slots.clear()
        alone = self.most == 1 or not is_out_of_memory(error)
        if alone and is_row_error(error):
            for one in running:
                one.output, one.is_done = error, True  # type: ignore[assignment]
            return
        self._wait_again(running)
        if alone:
            raise error
        beams = running[0].beams if running else 1
        self.most = max(min(self.most, len(running) * beams) // 2, 1)

    def _wait_again(self, sequences: list[Sequence]) -> None:
        for one in sequences:
            one.restart()
        with self._lock:
            self.waiting = [*sequences, *self.waiting]

    def _admit(self, most: int) -> None:
        """Begin texts that wait, if there is room for enough of them."""
        if not self.waiting or (self.running and not self._joins(self.waiting[0])):
            return
        beams, kind = self.waiting[0].beams, self.waiting[0].kind
        most = min(most, max(self.most // beams, 1), self._count_places(beams))
        free = most - len(self.running)
        if self.running and free < max(most * _FREE_SHARE, 1):
            return
        while free > 0 and self.waiting and self.waiting[0].kind == kind:
            group = self._take_group(free)
            self._begin_group(group)
            # Only the first prompts show how much memory each needs.
            free = min(free - len(group), self._count_places(beams) - len(self.running))

    def _joins(self, one: Sequence) -> bool:
        """Tell whether a text may begin while others run."""
        return self.decoder.joins_late and one.kind == self.running[0].kind

    def _count_places(self, beams: int) -> int:
        """Return how many texts the memory has room for, at least one."""
        longest = max([self.slots.width, *map(_count_tokens, self.waiting[:1])])
        # What an encoder read is there once.
        columns = longest * (_GROWTH * beams if self.decoder.is_decoder else _GROWTH + beams - 1)
        each = columns * self.slots.column_bytes + beams * self.slots.state_bytes
        return max(int(self.cache_bytes / each), 1) if each else self.most

    def _take_group(self, most: int) -> list[Sequence]:
        """Take sequences from the front whose prompts may share a forward pass."""
        taken: list[Sequence] = []
        left: list[Sequence] = []
        with self._lock:
            first = self.waiting[0]
            most = min(most, max(self.prompt_tokens // max(_count_tokens(first), 1), 1))
            for one in self.waiting:
                fits = len(taken) < most and (one is first or _begin_together(first, one))
                (taken if fits else left).append(one)
            self.waiting = left
        return taken

    def _begin_group(self, group: list[Sequence]) -> None:
        """Compute the prompts and their first tokens; those that do not end there run."""
        try:
            self.begin(group, lambda *given, **more: self.decoder.fill(group, *given, **more))
        except Exception as error:
            out_of_memory, alone = is_out_of_memory(error), len(group) == 1
            if out_of_memory and not self.running:
                self.slots.clear()  # some of them may be half filled
            if is_row_error(error) and alone and not (out_of_memory and self.running):
                group[0].output, group[0].is_done = error, True
                return
            self._wait_again(group)
            if out_of_memory:
                self.prompt_tokens = max(self.prompt_tokens // 2, 1)
            else:
                for one in group:
                    one.begins_alone = True
            if not is_row_error(error) or (out_of_memory and self.running):
                raise
            return
        self.running += [one for one in group if not one.is_done]


def _count_tokens(one: Sequence) -> int:
    ids = one.inputs.get("input_ids")
    return 1 if ids is None else int(ids.shape[-1])


def _begin_together(one: Sequence, other: Sequence) -> bool:
    """Tell whether the prompts of two sequences may share a forward pass."""
    if one.begins_alone or other.begins_alone or one.settings != other.settings:
        return False
    if one.kind != other.kind:
        return False
    if one.needs_length and _count_tokens(one) != _count_tokens(other):
        return False
    return one.beginning == other.beginning


def _find_beginning(sequences: list[Sequence]) -> None:
    """Note what all prompts begin with, if that is long: those that are tokens alone."""
    # The positions of a long text's beginning are scaled, too: it is no text of its own.
    sequences = [one for one in sequences if one.load is None and not one.scale]
    if len(sequences) < _LEAST_SHARING:
        return
    prompts = [one.inputs["input_ids"][0].tolist() for one in sequences]
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1  # a prompt's last token is computed
    differs = (i for i in range(max(most, 0)) if first[i] != last[i])
    shared = next(differs, most)
    if shared >= _LEAST_SHARED:
        beginning = tuple(first[:shared])
        for one in sequences:
            one.beginning = beginning


def _find_cache_bytes(device: torch.device) -> float:
    if device.type != "cuda":
        return _CACHE_BYTES
    return find_free_bytes(device) * _CACHE_SHARE
