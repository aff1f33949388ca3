"""Measure how fast one setting is on the rows of a trial, and how much memory it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pipemill.actors.arrow_arrays import field_values, find_field_values
from pipemill.actors.compute.forward_pass import ForwardPass
from pipemill.actors.compute.micro_batches import count_padded_tokens, cut_micro_batches
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.faults.blame import is_out_of_memory
from pipemill.actors.task import NotScheduled
from pipemill.pipelines.reference.in_batches import PlainBatches

from .peak_memory import PeakMemory

if TYPE_CHECKING:
    from .trial import Trial

# A batch that would take this many times the time limit is skipped.
_HOPELESS = 2


_ON_CPU = [512, 1024, 2048, 4096, 8192]
_ON_GPU = [4096, 8192, 16384, 32768, 65536, 131072]
# Settings whose speeds differ by less are equally fast: the smallest, which needs the least memory,
# is recommended.
_NOISE = 0.03


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A way to form batches, and what it costs.

    Attributes:
        how: "transformers" (rows in order, `size` a batch), "sorted" (micro-batches of similar
            lengths, of `size` padded tokens), "packed" (of `size` tokens, without padding), or
            the name and dtype of another engine than the job's (sorted).
        tokens, padded_tokens: The tokens of all rows, counted and not measured.
        measured: The share of the work that was run. Below 1 the rates are estimates.
        seconds: What all rows take.
        memory_bytes: The peak of what was run; None where it can't be measured.
        problem: Why there is no rate.
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
        """Return the fields and the share of padding, rounded."""
        fields = {**asdict(self), "padding": self.padding}
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items()}


class Stopwatch:
    """Measures batches for a limited time, and estimates what all of them would take.

    costs: The cost of each batch, such as its tokens.
    seconds: The time limit.
    """

    def __init__(self, costs: np.ndarray, seconds: float) -> None:
        # Texts without a known token cost nothing: there every batch counts the same.
        self.costs = costs if costs.any() else np.ones(len(costs), np.int64)
        self.limit = seconds
        self.done, self.started = 0, time.perf_counter()

    def record(self, number: int) -> bool:
        """Count a batch as done; return whether time is up."""
        self.done += int(self.costs[number])
        self.elapsed = time.perf_counter() - self.started
        return self.elapsed > self.limit

    @property
    def measured(self) -> float:
        return self.done / int(self.costs.sum())

    def seconds(self) -> float:
        return self.elapsed / self.measured


def measure_budget(
    trial: Trial, budget: int, packed: bool, seconds: float, engine: str | None = None
) -> Measurement:
    """Measure micro-batches of `budget` tokens, formed as in a run, for at most `seconds`.

    Args:
        engine: the trial's engine, if it is another one than the job's.
    """
    chunks = trial.chunks.take(pa.array(trial.distinct))
    sizes = field_values(chunks, "size")
    groups = find_field_values(chunks, "group")
    cuts = cut_micro_batches(sizes, budget, groups, padded=not packed)
    costs = np.array([sizes[c].sum() if packed else count_padded_tokens(sizes, [c]) for c in cuts])
    setting = Measurement(
        how=engine or ("packed" if packed else "sorted"),
        size=budget,
        tokens=int(sizes.sum()),
        padded_tokens=int(costs.sum()),
    )
    with nullcontext() if packed else trial.padding(), _measure_peak(trial) as peak:
        watch = Stopwatch(costs, seconds)
        for number in _spread_evenly(len(cuts)):
            forward = _run_chunks(trial, budget, chunks.take(pa.array(cuts[number])))
            if forward.stats["out_of_memory"]:
                return replace(setting, problem="out of memory")
            if not forward.done:
                return replace(setting, problem=_cut_first_line(forward.failed[0][1]))
            if watch.record(int(number)):
                break
    seconds = watch.seconds() + trial.host_seconds
    return _add_rates(trial, setting, seconds, measured=watch.measured, memory_bytes=peak.bytes)


def _run_chunks(trial: Trial, budget: int, chunks: pa.StructArray) -> ForwardPass:
    forward = ForwardPass(trial.stages.task, TokenBudget(budget), chunks)
    try:
        forward.run()
    except NotScheduled:  # they are of a kind that the trial had not seen
        return _run_chunks(trial, budget, chunks)
    return forward


def measure_transformers(trial: Trial, sizes: list[int], seconds: float) -> Iterator[Measurement]:
    """Measure `transformers.pipeline` with each batch size, for at most `seconds` each."""
    with trial.padding():
        try:
            plain = PlainBatches(trial.prepared.task.spec(), trial.loaded)
            tokens, counts = plain.sizes(trial.rows)
        except Exception as error:
            for size in sizes:
                yield Measurement(how="transformers", size=size, problem=_cut_first_line(error))
            return
        pace = 0.0  # seconds per padded token, of the last size that ran
        for size in sizes:
            setting = _measure_batch_size(trial, plain, (tokens, counts), size, seconds, pace)
            if setting.seconds and setting.padded_tokens:
                pace = setting.seconds / setting.padded_tokens
            yield setting


def _measure_batch_size(
    trial: Trial,
    plain: PlainBatches,
    chunks: tuple[np.ndarray, np.ndarray],
    size: int,
    seconds: float,
    pace: float,
) -> Measurement:
    tokens, counts = chunks
    cuts = [np.arange(i, min(i + size, len(tokens))) for i in range(0, len(tokens), size)]
    costs = np.array([count_padded_tokens(tokens, [cut]) for cut in cuts])
    setting = Measurement(
        how="transformers", size=size, tokens=int(tokens.sum()), padded_tokens=int(costs.sum())
    )
    if costs[0] * pace > _HOPELESS * seconds:
        return _add_rates(trial, setting, setting.padded_tokens * pace)
    last_batch = (np.cumsum(counts) - 1) // size  # of each row's last chunk
    batch = -1
    with _measure_peak(trial) as peak:
        watch = Stopwatch(costs, seconds)
        try:
            for row, _ in enumerate(plain.answers(trial.rows, size)):
                # The time of a batch is complete only when the next row needs another one.
                if row + 1 < len(counts) and last_batch[row + 1] == last_batch[row]:
                    continue
                time_is_up = False
                while batch < last_batch[row]:
                    batch += 1
                    time_is_up = watch.record(batch)
                if time_is_up:
                    break
        except Exception as error:
            problem = "out of memory" if is_out_of_memory(error) else _cut_first_line(error)
            return replace(setting, problem=problem)
    return _add_rates(
        trial, setting, watch.seconds(), measured=watch.measured, memory_bytes=peak.bytes
    )


def _add_rates(trial: Trial, setting: Measurement, seconds: float, **more: Any) -> Measurement:
    """Return a copy with the rates that follow from the seconds for all rows."""
    return replace(
        setting,
        seconds=seconds,
        rows_per_second=trial.rows.num_rows / seconds,
        tokens_per_second=setting.tokens / seconds,
        **more,
    )


def _measure_peak(trial: Trial) -> PeakMemory:
    return PeakMemory(trial.loaded.pipeline.device)


def _cut_first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _spread_evenly(count: int) -> np.ndarray:
    """Return all numbers below `count` from 0 on, such that the first few are a fair sample.

    Micro-batches are sorted: their first half has the longest chunks.
    """
    return np.argsort((np.arange(count) * 0.6180339887) % 1, kind="stable")


def candidate_budgets(trial: Trial) -> list[int]:
    """Return the token budgets to measure, up to one that holds all rows of the trial."""
    on_gpu = trial.loaded.pipeline.device.type == "cuda"
    every = _ON_GPU if on_gpu else _ON_CPU
    tokens = int(trial.sizes[trial.distinct].sum())
    enough = next((i for i, budget in enumerate(every) if budget >= tokens), len(every))
    return every[: enough + 1]


def find_best(settings: list[Measurement]) -> Measurement | None:
    """Return the setting with the smallest of the fastest budgets, packed or padded as a run would
    compute; None if none ran."""
    how = "packed" if any(s.how == "packed" for s in settings) else "sorted"
    ran = [s for s in settings if s.how == how and s.rows_per_second]
    most = max((s.rows_per_second or 0.0 for s in ran), default=0.0)
    fast = [s for s in ran if (s.rows_per_second or 0.0) >= most * (1 - _NOISE)]
    return min(fast, key=lambda setting: setting.size, default=None)


def find_best_budget(settings: list[Measurement]) -> int | None:
    """Return the budget of the best setting; None if none ran."""
    best = find_best(settings)
    return None if best is None else best.size
