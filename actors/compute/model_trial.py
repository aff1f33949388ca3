"""Tell a model that fails for every row from rows that fail: dummy ones fail in the same way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import pyarrow as pa

from ..batch import Batch, Failure
from ..faults.blame import is_memory_failure
from ..faults.load_errors import LoadError

MakeRows = Callable[[Collection[str]], pa.Table]

# What differs between rows that fail in the same way: sizes, ids, positions.
_NUMBER = re.compile(r"\d+(\.\d+)?")
# Errors of a network, a disk or a process: dummy rows meet them as well, other workers may not.
_PASSING_CLASS = re.compile(r"MemoryError|Timeout|Connect|StoreError")
_PASSING_MESSAGE = re.compile(r"\[Errno|can't start new thread")


@dataclass
class ModelTrial:
    """What is known of a model until it has answered a row.

    Attributes:
        task: what messages call it.
        make: from the input's columns that hold values to a few rows that any model of the task
            can take.
        computes: whether this process has the weights; else it makes chunks only.
        passed: the steps that a row has been through.
    """

    task: str
    make: MakeRows
    computes: bool
    passed: set[str] = field(default_factory=set)
    # What dummy rows failed with, by the step and the columns that they had.
    _tried: dict[tuple[str, ...], set[tuple[str, str]]] = field(default_factory=dict)

    def check(self, batch: Batch, step: str, run: Callable[[Batch], Batch]) -> None:
        """Raise LoadError if all rows failed by this step, and dummy ones fail in the same way.

        run: computes the dummy rows up to this step.
        """
        if step in self.passed:
            return
        rows = batch.rows
        if len(batch.ok_rows()):
            self.passed.add(step)
            return
        if not rows.num_rows or not (self.computes or step == "expand"):
            return
        # Rows that an earlier step failed for did not get to this one.
        failures = [failure for failure in batch.failures.values() if failure.stage == step]
        if not failures:
            return
        kind, count = Counter(map(_find_kind, failures)).most_common(1)[0]
        first = next(failure for failure in failures if _find_kind(failure) == kind)
        if _may_pass(first):
            return
        given = [name for name in rows.column_names if rows[name].null_count < rows.num_rows]
        known = (step, *given)
        if known not in self._tried:
            self._tried[known] = _find_failures(self.make(given), run)
        if self._tried[known] == {kind}:
            raise LoadError(self._describe(first, count), for_good=True)

    def _describe(self, failure: Failure, count: int) -> str:
        rows = "the first row fails" if count == 1 else f"the first {count:,} rows fail"
        reason = " ".join(failure.message.split()).rstrip(".")
        return (
            f"{self.task}: {rows}, and made-up ones fail in the same way: {failure.error}: "
            f"{reason}. No row would have an answer: the files of the model do not go together, or "
            "a parameter does not suit it"
        )


def _find_failures(dummies: pa.Table, run: Callable[[Batch], Batch]) -> set[tuple[str, str]]:
    """Return what dummy rows fail with; nothing if one of them does not fail."""
    failures = run(Batch(dummies)).failures if dummies.num_rows else {}
    if len(failures) < dummies.num_rows:
        return set()
    return {_find_kind(failure) for failure in failures.values()}


def _find_kind(failure: Failure) -> tuple[str, str]:
    return failure.error, _NUMBER.sub("#", failure.message)


def _may_pass(failure: Failure) -> bool:
    """Tell whether a row may be computed at another time or elsewhere: no model is at fault."""
    return bool(
        is_memory_failure(failure.error, failure.message)
        or _PASSING_CLASS.search(failure.error)
        or _PASSING_MESSAGE.match(failure.message)
    )
