"""How fast one setting is on the rows of a trial, and how much memory it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.arrow_arrays import field_values
from pipemill.actors.compute.forward_pass import ForwardPass
from pipemill.actors.compute.micro_batches import micro_batches, padded_size
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.faults.out_of_memory import is_out_of_memory
from pipemill.pipelines.reference.in_batches import PlainBatches

from .peak_memory import PeakMemory
from .trial import Trial

# A batch that alone would take so many times a setting's seconds is not begun.
_HOPELESS = 2


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A way to cut the rows into batches, and what it costs.

    how: "transformers" (rows in order, `size` a batch), "sorted" (micro-batches of equal lengths,
        of `size` padded tokens) or "packed" (of `size` tokens, without padding).
    tokens, padded_tokens: of all rows, counted. padding: the share of the latter that is padding.
    measured: the share of the work that was run; where it is below 1 the rates are reckoned.
    memory_bytes: at most, of what was run; None where it was not measured.
    problem: why there is no rate.
    """

    how: str
    size: int
    tokens: int = 0
    padded_tokens: int = 0
    measured: float = 0.0
    seconds: float | None = None
    rows_per_second: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    problem: str | None = None

    @property
    def name(self) -> str:
        key = "batch_size" if self.how == "transformers" else "max_tokens"
        return f"{self.how}, {key}={self.size}"

    @property
    def padding(self) -> float | None:
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else None

    def to_dict(self) -> dict[str, Any]:
        told = {**asdict(self), "padding": self.padding}
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in told.items()}


class Stopwatch:
    """Adds up work done in a limited time, and reckons what all of it would take."""

    def __init__(self, costs: np.ndarray, seconds: float) -> None:
        self.costs, self.limit = costs, seconds
        self.done, self.started = 0, time.perf_counter()

    def did(self, number: int) -> bool:
        """Takes note of a batch; returns whether time is up."""
        self.done += int(self.costs[number])
        self.elapsed = time.perf_counter() - self.started
        return self.elapsed > self.limit

    @property
    def measured(self) -> float:
        return self.done / int(self.costs.sum())

    def seconds(self) -> float:
        return self.elapsed / self.measured


def measure_budget(trial: Trial, budget: int, packed: bool, seconds: float) -> Measurement:
    """Micro-batches of `budget` tokens, as a run would cut them, for at most `seconds`."""
    chunks = trial.chunks.take(pa.array(trial.distinct))
    sizes = field_values(chunks, "size")
    groups = field_values(chunks, "group") if chunks.type.get_field_index("group") >= 0 else None
    cuts = micro_batches(sizes, budget, groups, padded=not packed)
    costs = np.array([sizes[c].sum() if packed else padded_size(sizes, [c]) for c in cuts])
    setting = Measurement(
        how="packed" if packed else "sorted",
        size=budget,
        tokens=int(sizes.sum()),
        padded_tokens=int(costs.sum()),
    )
    with nullcontext() if packed else trial.padding(), _peak(trial) as peak:
        watch = Stopwatch(costs, seconds)
        for number in _spread(len(cuts)):
            forward = ForwardPass(
                trial.stages.task, TokenBudget(budget), chunks.take(pa.array(cuts[number]))
            )
            forward.run()
            if forward.work["out_of_memory"]:
                return replace(setting, problem="out of memory")
            if not forward.done:
                return replace(setting, problem=_said(forward.failed[0][1]))
            if watch.did(int(number)):
                break
    seconds = watch.seconds() + trial.host_seconds
    return _rated(trial, setting, seconds, measured=watch.measured, memory_bytes=peak.bytes)


def measure_transformers(trial: Trial, sizes: list[int], seconds: float) -> Iterator[Measurement]:
    """`transformers.pipeline` with each of these batch sizes, for at most `seconds` each."""
    with trial.padding():
        try:
            plain = PlainBatches(trial.prepared.load.spec(), trial.loaded)
            tokens, counts = plain.sizes(trial.rows)
        except Exception as error:
            for size in sizes:
                yield Measurement(how="transformers", size=size, problem=_said(error))
            return
        pace = 0.0  # seconds per padded token, of the last size that ran
        for size in sizes:
            setting = _batches(trial, plain, (tokens, counts), size, seconds, pace)
            if setting.seconds:
                pace = setting.seconds / setting.padded_tokens
            yield setting


def _batches(
    trial: Trial,
    plain: PlainBatches,
    chunks: tuple[np.ndarray, np.ndarray],
    size: int,
    seconds: float,
    pace: float,
) -> Measurement:
    tokens, counts = chunks
    cuts = [np.arange(i, min(i + size, len(tokens))) for i in range(0, len(tokens), size)]
    costs = np.array([padded_size(tokens, [cut]) for cut in cuts])
    setting = Measurement(
        how="transformers", size=size, tokens=int(tokens.sum()), padded_tokens=int(costs.sum())
    )
    if costs[0] * pace > _HOPELESS * seconds:
        return _rated(trial, setting, setting.padded_tokens * pace)
    last_batch = (np.cumsum(counts) - 1) // size  # that of each row's last chunk
    batch = -1
    with _peak(trial) as peak:
        watch = Stopwatch(costs, seconds)
        try:
            for row, _ in enumerate(plain.answers(trial.rows, size)):
                # Only where the next row needs another batch has all of this one been paid for.
                if row + 1 < len(counts) and last_batch[row + 1] == last_batch[row]:
                    continue
                up = False
                while batch < last_batch[row]:
                    batch += 1
                    up = watch.did(batch)
                if up:
                    break
        except Exception as error:
            said = "out of memory" if is_out_of_memory(error) else _said(error)
            return replace(setting, problem=said)
    return _rated(trial, setting, watch.seconds(), measured=watch.measured, memory_bytes=peak.bytes)


def _rated(trial: Trial, setting: Measurement, seconds: float, **more: Any) -> Measurement:
    """With the rates that follow from the seconds for all rows."""
    return replace(
        setting,
        seconds=seconds,
        rows_per_second=trial.rows.num_rows / seconds,
        tokens_per_second=setting.tokens / seconds,
        **more,
    )


def _peak(trial: Trial) -> PeakMemory:
    return PeakMemory(trial.loaded.pipeline.device)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _spread(count: int) -> np.ndarray:
    """All numbers, the first one first, so that the first few are a fair sample of them.

    Micro-batches are sorted: their first half has the longest chunks.
    """
    return np.argsort((np.arange(count) * 0.6180339887) % 1, kind="stable")
