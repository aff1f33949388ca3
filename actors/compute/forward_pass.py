"""Run all chunks of a split through the model in micro-batches, and keep going when some fail."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..arrow_arrays import check_length, field_values, find_field_values
from ..faults.bisect import bisect_failures
from ..faults.blame import is_out_of_memory, is_row_error
from ..faults.out_of_memory import OutOfMemory, release_memory
from ..faults.watchdog import mark_progress
from ..task import LoadedTask
from .deduplicate import deduplicate_chunks
from .micro_batches import count_padded_tokens, cut_micro_batches
from .token_budget import TokenBudget

Pieces = list[tuple[np.ndarray, Any]]
Failed = list[tuple[int, BaseException]]


@dataclass
class ForwardPass:
    """One pass over the chunks of a split.

    done: pieces of outputs, each with the numbers of its chunks.
    failed: numbers of chunks, each with its error.
    stats: counts that add up over splits, with the names of `Batch.stats`.
    """

    task: LoadedTask
    budget: TokenBudget
    chunks: pa.StructArray
    done: Pieces = field(default_factory=list)
    failed: Failed = field(default_factory=list)
    stats: Counter[str] = field(default_factory=Counter)
    # Whether to wait for each micro-batch, rather than for all of them at the end.
    blocking: bool = False

    def run(self) -> None:
        self.sizes = field_values(self.chunks, "size")
        self.groups = find_field_values(self.chunks, "group")
        every = np.arange(len(self.chunks))
        left, duplicate_of = every, every
        if self._is("repeats"):
            left, duplicate_of = deduplicate_chunks(self.chunks)
        self.stats.update(chunks=len(self.chunks), repeated_chunks=len(self.chunks) - len(left))
        while len(left):
            left = self._run_all(left) if self._is("schedules") else self._run_budget(left)
            if not len(left):
                left = self._collect()
        if len(duplicate_of) != len(np.unique(duplicate_of)):
            self._copy_to_duplicates(duplicate_of)

    def _run_all(self, left: np.ndarray) -> np.ndarray:
        """Hand all chunks over at once, the longest first: what does not fit shows at once."""
        chunks = left[np.argsort(-self.sizes[left], kind="stable")]
        pieces, failed = bisect_failures(chunks, self._run_micro_batch)
        self.done += pieces
        self.failed += failed
        tokens = int(self.sizes[left].sum())
        self.stats.update(micro_batches=1, tokens=tokens, padded_tokens=tokens)
        return left[:0]

    def _run_budget(self, left: np.ndarray) -> np.ndarray:
        """Run micro-batches of one budget; return the chunks to run with another one."""
        budget, padded = self.budget.tokens, not self._is("packed")
        sizes = self.sizes[left]
        groups = None if self.groups is None else self.groups[left]
        cuts = cut_micro_batches(sizes, budget, groups, padded=padded)
        for number, cut in enumerate(cuts):
            tokens = int(sizes[cut].sum())
            cost = count_padded_tokens(sizes, [cut]) if padded else tokens
            started = time.perf_counter()
            fits = True
            try:
                pieces, failed = bisect_failures(left[cut], self._run_within_budget)
            except OutOfMemory:
                fits = False
            if not fits:  # outside `except`: an exception in flight holds what did not fit
                release_memory()
                self.budget.halve(cost)
                self.stats["out_of_memory"] += 1
                return left[np.concatenate(cuts[number:])]
            self.done += pieces
            self.failed += failed
            self.stats.update(micro_batches=1, tokens=tokens, padded_tokens=cost)
            self.stats["packed_tokens"] += 0 if padded else tokens
            self.budget.record(budget, cost, tokens, time.perf_counter() - started)
            if self.budget.tokens != budget and number + 1 < len(cuts):
                return left[np.concatenate(cuts[number + 1 :])]
        return left[:0]

    def _is(self, name: str) -> bool:
        # A user's class may lack the attribute.
        return bool(getattr(self.task, name, False))

    def _run_micro_batch(self, chunks: np.ndarray) -> Any:
        """Return the outputs of some chunks, or a function that waits for them."""
        mark_progress()
        outputs = self.task.forward(self.chunks.take(pa.array(chunks)))
        if callable(outputs):
            if not self.blocking and self.budget.is_final:
                return outputs
            outputs = outputs()  # measuring a micro-batch needs its end
        return check_length(chunks, outputs)

    def _run_within_budget(self, chunks: np.ndarray) -> Any:
        """Do the same. Raise OutOfMemory for chunks that may fit in smaller micro-batches."""
        try:
            return self._run_micro_batch(chunks)
        except Exception as error:
            # If a single chunk does not fit, its row fails.
            if len(chunks) > 1 and is_out_of_memory(error):
                raise OutOfMemory from error
            raise

    def _collect(self) -> np.ndarray:
        """Wait for the outputs that are still on the device.

        Return the chunks of those that fail only now, to be run again, one micro-batch at a time.
        """
        pieces, self.done, again = self.done, [], []
        for chunks, outputs in pieces:
            mark_progress()
            try:
                arrived = check_length(chunks, outputs()) if callable(outputs) else outputs
                self.done.append((chunks, arrived))
            except BaseException as error:
                if not is_row_error(error):
                    raise
                again.append(chunks)
        self.blocking = bool(again)
        return np.concatenate([*again, np.zeros(0, np.int64)])

    def _copy_to_duplicates(self, duplicate_of: np.ndarray) -> None:
        """Give chunks the outputs and errors of the first chunk that equals them."""
        errors = dict(self.failed)
        firsts = enumerate(duplicate_of.tolist())
        self.failed = [(i, errors[first]) for i, first in firsts if first in errors]
        if not self.done:
            return
        place = np.full(len(duplicate_of), -1)
        computed = np.concatenate([chunks for chunks, _ in self.done])
        place[computed] = np.arange(len(computed))
        copies = np.flatnonzero(place[duplicate_of] >= 0)
        values = pa.concat_arrays([values for _, values in self.done])
        self.done = [(copies, values.take(pa.array(place[duplicate_of[copies]])))]
