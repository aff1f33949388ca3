"""Which batches are fastest for this model on these rows: measured, as a table, in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipemill.errors import ConfigError

from .config.job import Job
from .measuring.benchmark import Measurement, measure_budget, measure_transformers
from .measuring.plot import check, draw
from .measuring.trial import Trial, start_trial

BATCH_SIZES = [1, 8, 64, 256]
_ON_CPU = [512, 1024, 2048, 4096, 8192]
_ON_GPU = [4096, 8192, 16384, 32768, 65536, 131072]
# Of settings that are as fast as each other within this, the one that needs least memory.
_NOISE = 0.03

Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What `tune` found: the settings in the order they were measured, and the best budget.

    plot: the picture's file; None where matplotlib is missing.
    """

    task: str
    model: str
    rows: int
    failed: int
    seconds: float
    settings: list[Measurement]
    max_tokens: int | None
    plot: str | None

    def to_json(self) -> str:
        """One line."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        told["settings"] = [setting.to_dict() for setting in self.settings]
        told["recommended"] = (
            None if self.max_tokens is None else {"batching": {"max_tokens": self.max_tokens}}
        )
        return json.dumps(told)

    def __str__(self) -> str:
        return "\n".join([*table(self.settings), *self._advice()])

    def _advice(self) -> list[str]:
        lines = []
        if any(0 < s.measured < 1 or (s.seconds and not s.measured) for s in self.settings):
            lines.append(
                f"≈ was stopped after {self.seconds:g} s, or not begun where one batch would have "
                "taken longer: reckoned from what was run"
            )
        if self._cut():
            lines.append(f"transformers computed {self._cut():,} tokens less: it cuts long texts")
        if self.plot is not None:
            lines.append(f"plot: {self.plot}")
        if self.max_tokens is not None:
            lines += ["for the config:", "", f"batching: {{max_tokens: {self.max_tokens}}}"]
        return lines

    def _cut(self) -> int:
        """Tokens that transformers would leave out."""
        tokens = {s.how: s.tokens for s in self.settings if s.tokens}
        return max(tokens.get("sorted", 0) - tokens.get("transformers", 10**18), 0)


def tune(job: Job, rows: int, seconds: float, plot: str | None, note: Note) -> Tuning:
    """Measures the settings on so many rows, for at most `seconds` each. Writes only the plot.

    plot: its file; None for `tune.png` beside the output, if matplotlib is there.
    note: is told what happens.
    Raises ConfigError for a job that can't run, RunError if no row could be computed.
    """
    missing = check(plot)
    trial = start_trial(job, rows)
    note(_introduction(trial, seconds))
    settings = []
    for setting in measure_transformers(trial, BATCH_SIZES, seconds):
        note(f"measured {setting.name}")
        settings.append(setting)
    for packed in (False, True) if trial.packs else (False,):
        for budget in budgets(trial):
            settings.append(measure_budget(trial, budget, packed, seconds))
            note(f"measured {settings[-1].name}")
    if missing:
        note(missing)
    drawn = None if missing else _drawn(settings, plot, trial, note)
    return Tuning(
        task=trial.prepared.load.task,
        model=job.model.path,
        rows=trial.rows.num_rows,
        failed=trial.failed,
        seconds=seconds,
        settings=settings,
        max_tokens=best_budget(settings),
        plot=drawn,
    )


def _drawn(settings: list[Measurement], plot: str | None, trial: Trial, note: Note) -> str | None:
    """The plot's file. One that nobody asked for is not worth what was measured."""
    try:
        return draw(settings, plot or _beside(trial.prepared.ledger.path))
    except ConfigError as error:
        if plot is not None:
            raise
        note(str(error))
        return None


def budgets(trial: Trial) -> list[int]:
    """Those that differ on so many tokens."""
    on_gpu = trial.loaded.pipeline.device.type == "cuda"
    every = _ON_GPU if on_gpu else _ON_CPU
    tokens = int(trial.sizes[trial.distinct].sum())
    enough = next((i for i, budget in enumerate(every) if budget >= tokens), len(every))
    return every[: enough + 1]


def best_budget(settings: list[Measurement]) -> int | None:
    """The smallest of the fastest, in the way that a run would compute; None if none ran."""
    how = "packed" if any(s.how == "packed" for s in settings) else "sorted"
    ran = {s.size: s.rows_per_second for s in settings if s.how == how and s.rows_per_second}
    most = max(ran.values(), default=0.0)
    return min((size for size, rate in ran.items() if rate >= most * (1 - _NOISE)), default=None)


def table(settings: list[Measurement]) -> list[str]:
    """One line per setting, for a terminal."""
    head = f"{'':<32}{'rows/s':>10}{'tokens/s':>12}{'padding':>9}{'memory':>11}"
    return [head, *(f"{s.name:<32}{_cells(s)}" for s in settings)]


def _cells(setting: Measurement) -> str:
    if setting.rows_per_second is None:
        return f"  {setting.problem}"
    about = "≈" if setting.measured < 1 else ""
    memory = setting.memory_bytes
    cells = [
        (about + _number(setting.rows_per_second), 10),
        (about + _number(setting.tokens_per_second or 0), 12),
        ("-" if setting.padding is None else f"{setting.padding:.1%}", 9),
        ("-" if memory is None else f"{memory / 2**20:,.0f} MiB", 11),
    ]
    return "".join(f"{text:>{width}}" for text, width in cells)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _introduction(trial: Trial, seconds: float) -> str:
    failed = f" ({trial.failed} more failed)" if trial.failed else ""
    on_gpu = trial.loaded.pipeline.device.type == "cuda"
    memory = "allocated on the GPU, with the model" if on_gpu else "growth of this process"
    packs = "" if trial.packs else "; the model's chunks can't be packed"
    return (
        f"{trial.rows.num_rows:,} rows{failed}, {len(trial.chunks):,} chunks, "
        f"{int(trial.sizes.sum()):,} tokens{packs}. One process, at most {seconds:g} s a setting "
        f"(and the batch then running). Memory: peak {memory}"
    )


def _beside(output: str) -> str:
    """Never in the output: what is there belongs to the run."""
    folder = Path(output).parent
    here = "://" in output or not folder.is_dir() or not os.access(folder, os.W_OK)
    return str((Path() if here else folder) / "tune.png")
