"""All chunks of a split through the model, in micro-batches, whatever fails on the way."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..arrow_arrays import check_length, field_values
from ..faults.bisect import bisect_failures, is_row_error
from ..faults.out_of_memory import OutOfMemory, is_out_of_memory, release_memory
from ..task import LoadedTask
from .deduplicate import deduplicate_chunks
from .micro_batches import micro_batches, padded_size
from .token_budget import TokenBudget

Pieces = list[tuple[np.ndarray, Any]]
Failed = list[tuple[int, BaseException]]


@dataclass
class ForwardPass:
    """One pass over the chunks of a split.

    done: pieces of outputs, each with the numbers of its chunks; failed: chunks with their error.
    work: what was counted.
    """

    task: LoadedTask
    budget: TokenBudget
    chunks: pa.StructArray
    done: Pieces = field(default_factory=list)
    failed: Failed = field(default_factory=list)
    work: Counter[str] = field(default_factory=Counter)
    # Whether each micro-batch is waited for, rather than all of them at the end.
    waits: bool = False

    def run(self) -> None:
        self.sizes = field_values(self.chunks, "size")
        self.groups = field_values(self.chunks, "group") if _has(self.chunks, "group") else None
        left, copies = deduplicate_chunks(self.chunks) if self._is("repeats") else _all(self.chunks)
        self.work.update(chunks=len(self.chunks), repeated_chunks=len(self.chunks) - len(left))
        while len(left):
            left = self._pass(left)
            if not len(left):
                left = self._arrived()
        if len(copies) != len(np.unique(copies)):
            self._copy(copies)

    def _pass(self, left: np.ndarray) -> np.ndarray:
        """Runs micro-batches of one budget; returns the chunks for which another is tried."""
        budget, padded = self.budget.tokens, not self._is("packed")
        groups = None if self.groups is None else self.groups[left]
        cuts = micro_batches(self.sizes[left], budget, groups, padded=padded)
        for number, cut in enumerate(cuts):
            rest = cuts[number:]
            tokens = int(self.sizes[left[cut]].sum())
            cost = padded_size(self.sizes[left], [cut]) if padded else tokens
            started = time.perf_counter()
            fits = True
            try:
                pieces, failed = bisect_failures(left[cut], self._micro_batch)
            except OutOfMemory:
                fits = False
            if not fits:  # outside `except`: an exception in flight holds what did not fit
                release_memory()
                self.budget.halve(cost)
                self.work["out_of_memory"] += 1
                return left[np.concatenate(rest)]
            self.done += pieces
            self.failed += failed
            self.work.update(micro_batches=1, tokens=tokens, padded_tokens=cost)
            self.work["packed_tokens"] += 0 if padded else tokens
            self.budget.ran(budget, cost, tokens, time.perf_counter() - started)
            if self.budget.tokens != budget and len(rest) > 1:
                return left[np.concatenate(rest[1:])]
        return left[:0]

    def _is(self, name: str) -> bool:
        """What a class of the user's need not say."""
        return bool(getattr(self.task, name, False))

    def _micro_batch(self, some: np.ndarray) -> pa.Array:
        try:
            found = self.task.forward(self.chunks.take(pa.array(some)))
            if not callable(found):
                return check_length(some, found)
            # Without waiting there is nothing to measure.
            return check_length(some, found()) if self.waits or not self.budget.settled else found
        except Exception as error:
            # A single chunk that does not fit is that row's own trouble.
            if len(some) > 1 and is_out_of_memory(error):
                raise OutOfMemory from error
            raise

    def _arrived(self) -> np.ndarray:
        """Waits for the outputs that are on their way from the device; returns the chunks of those
        that fail now: they are run again, and waited for."""
        pieces, self.done, again = self.done, [], []
        for some, found in pieces:
            try:
                self.done.append((some, check_length(some, found()) if callable(found) else found))
            except BaseException as error:
                if not is_row_error(error):
                    raise
                again.append(some)
        self.waits = bool(again)
        return np.concatenate([*again, np.zeros(0, np.int64)])

    def _copy(self, copies: np.ndarray) -> None:
        """Gives equal chunks what the first of them got."""
        places = {int(chunk): np.flatnonzero(copies == chunk) for chunk, _ in self.failed}
        self.failed = [(int(i), error) for chunk, error in self.failed for i in places[chunk]]
        for i, (index, values) in enumerate(self.done):
            order = np.argsort(index)
            spots = np.searchsorted(index[order], copies)
            spots = np.minimum(spots, len(index) - 1)
            mine = np.flatnonzero(index[order][spots] == copies)
            self.done[i] = (mine, values.take(pa.array(order[spots[mine]])))


def _has(chunks: pa.StructArray, name: str) -> bool:
    return chunks.type.get_field_index(name) >= 0


def _all(chunks: pa.StructArray) -> tuple[np.ndarray, np.ndarray]:
    every = np.arange(len(chunks))
    return every, every
