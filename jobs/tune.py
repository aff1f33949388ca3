"""Measure which batches are fastest for this model on these rows, in this process."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import json
import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipemill.pipelines.library_settings import keep_settings

from pipemill.errors import ConfigError, RunError, explain_interrupt

from .config.check_arguments import check_count, check_positive, list_texts
from .config.job import Job
from .config.load import build_job
from .config.sections import Sections, takes_sections
from .measuring.benchmark import (
    Measurement,
    candidate_budgets,
    find_best_budget,
    measure_budget,
    measure_transformers,
)
from .measuring.other_engines import with_engines
from .measuring.plot import check_plot, draw_plot
from .measuring.trial import Trial, start_trial
from .output.text_table import Block, Shown, TextTable, format_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

BATCH_SIZES = [1, 8, 64, 256]

Log = Callable[[str], None]

# Pictures that every browser shows, by the suffix of their file.
_PICTURES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


@dataclass(frozen=True, kw_only=True)
class Tuning(Shown):
    """The result of `tune`.

    Attributes:
        rows, failed: The rows that were measured, and those that could not be.
        seconds: The time limit of each setting.
        settings: The measurements in their order.
        max_tokens: The best token budget; None if none could be measured.
        plot: The picture's file; None without matplotlib.
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
        """Return one line."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["settings"] = [setting.to_dict() for setting in self.settings]
        fields["recommended"] = (
            None if self.max_tokens is None else {"batching": {"max_tokens": self.max_tokens}}
        )
        return json.dumps(fields)

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        return [format_settings(self.settings), *self._advise_setting()]

    def _repr_html_(self) -> str:
        return super()._repr_html_() + _embed_plot(self.plot)

    def _advise_setting(self) -> list[str]:
        lines = []
        if any(0 < s.measured < 1 or (s.seconds and not s.measured) for s in self.settings):
            lines.append(
                f"≈ is an estimate: the setting was stopped after {self.seconds:g} s, or skipped "
                "because one batch would have taken longer"
            )
        if less := self._count_left_out():
            lines.append(f"transformers computed {less:,} tokens less: it truncates long texts")
        if self.plot is not None:
            lines.append(f"plot: {self.plot}")
        if self.max_tokens is not None:
            lines += ["for the config:", "", f"batching: {{max_tokens: {self.max_tokens}}}"]
        return lines

    def _count_left_out(self) -> int:
        """Return how many tokens transformers would leave out."""
        tokens = {s.how: s.tokens for s in self.settings if s.tokens}
        return max(tokens.get("sorted", 0) - tokens.get("transformers", 10**18), 0)


@takes_sections
def tune(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None = None,
    *,
    rows: int = 256,
    seconds: float = 10.0,
    plot: str | os.PathLike[str] | None = None,
    log: Log | None = None,
    engines: list[str] | None = None,
    settings: list[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    **sections: Unpack[Sections],
) -> Tuning:
    """Measure batch sizes and token budgets on some rows, in this process. Write only the plot.

    The other arguments are those of `run`. The job needs no output, and its output is ignored.

    Args:
        rows: How many rows of the input to read.
        seconds: How long to measure each setting, at most.
        plot: The plot's file; None for `tune.png` beside the output, or in the current folder
            without one, if matplotlib is installed.
        log: Is called with a line on each step.
        engines: Other engines to measure beside the job's, each with its dtype after a colon if
            it is not the engine's default: ["onnx", "openvino:int8"]. They are not recommended,
            since their answers may differ.

    Returns:
        The settings that were measured, the fastest first, and what they recommend.

    Raises:
        ConfigError: The job can't run, or the plot can't be written.
        RunError: No row could be computed.
        RunInterrupted: A KeyboardInterrupt, if it was interrupted.
    """
    check_count(rows=rows)
    check_positive(seconds=seconds)
    others = list_texts("engines", engines, "onnx")
    if plot is not None and not isinstance(plot, str | os.PathLike):
        raise ConfigError(f"plot must be the path of a file, not {plot!r}")
    if log is not None and not callable(log):
        raise ConfigError(f"log must be a function that takes a line, such as print, not {log!r}")
    job = build_job(config, settings or [], columns or {}, sections, needs_output=False)
    file = None if plot is None else os.fspath(plot)
    with explain_interrupt("interrupted"), keep_settings():
        return _tune(job, others, rows, seconds, file, log or (lambda text: None))


def _tune(
    job: Job,
    engines: list[str],
    rows: int,
    seconds: float,
    plot: str | None,
    log: Log,
) -> Tuning:
    if job.tasks:
        names = ", ".join(entry.label for entry in job.tasks)
        raise ConfigError(
            f"tune measures one task, and the job has several ({names}): give it a job with one of "
            "them as task and model"
        )
    missing = check_plot(plot)
    others = with_engines(job, engines)
    trial = start_trial(job, rows)
    log(_write_introduction(trial, seconds))
    settings = []
    for setting in measure_transformers(trial, BATCH_SIZES, seconds):
        log(f"measured {setting.name}")
        settings.append(setting)
    for packed in (False, True) if trial.packs else (False,):
        for budget in candidate_budgets(trial):
            settings.append(measure_budget(trial, budget, packed, seconds))
            log(f"measured {settings[-1].name}")
    for engine, other in others.items():
        log(f"preparing {engine}")
        exported = start_trial(other, rows)
        for budget in candidate_budgets(exported):
            settings.append(measure_budget(exported, budget, False, seconds, engine))
            log(f"measured {settings[-1].name}")
    if all(setting.problem for setting in settings):
        raise RunError(f"no row could be computed: {settings[-1].problem}")
    if missing:
        log(missing)
    drawn = None if missing else _draw(settings, plot, trial, log)
    return Tuning(
        task=trial.prepared.load.task,
        model=str(job.model.path),
        rows=trial.rows.num_rows,
        failed=trial.failed,
        seconds=seconds,
        settings=settings,
        max_tokens=find_best_budget(settings),
        plot=drawn,
    )


def _draw(settings: list[Measurement], plot: str | None, trial: Trial, log: Log) -> str | None:
    """Return the plot's file.

    Where a plot was not asked for, an error must not cost the measurements.
    """
    try:
        file = plot or _place_plot(trial.prepared.ledger.path)
        model = str(trial.job.model.path).rstrip("/").rpartition("/")[2]
        title = f"{trial.prepared.task.task}, {model}, {trial.rows.num_rows:,} rows"
        return draw_plot(settings, file, title)
    except ConfigError as error:
        if plot is not None:
            raise
        log(str(error))
        return None


def _embed_plot(plot: str | None) -> str:
    """Return the plot as an HTML image that needs no file; nothing if that can't be."""
    kind = _PICTURES.get(Path(plot).suffix.lower()) if plot else None
    try:
        data = Path(plot).read_bytes() if plot and kind else None
    except OSError:  # it was moved away since
        data = None
    return f"<img src='data:{kind};base64,{b64encode(data).decode()}'>" if data else ""


def format_settings(settings: list[Measurement]) -> TextTable:
    """Return a line per setting."""
    header = ["", "rows/s", "tokens/s", "padding", "memory"]
    rows = [[setting.name, *_make_cells(setting)] for setting in settings]
    if any(setting.problem for setting in settings):
        header = [*header, "problem"]
        rows = [[*row, setting.problem or ""] for row, setting in zip(rows, settings, strict=True)]
    return TextTable(
        header=header, rows=rows, right=frozenset({1, 2, 3, 4}), widths=(30, 8, 10, 7, 9)
    )


def _make_cells(setting: Measurement) -> list[str]:
    if setting.rows_per_second is None:
        return ["-"] * 4
    about = "≈" if setting.measured < 1 else ""
    memory = setting.memory_bytes
    return [
        about + format_number(setting.rows_per_second),
        about + format_number(setting.tokens_per_second or 0),
        "-" if setting.padding is None else f"{setting.padding:.1%}",
        "-" if memory is None else f"{memory / 2**20:,.0f} MiB",
    ]


def _write_introduction(trial: Trial, seconds: float) -> str:
    failed = f" ({trial.failed} more failed)" if trial.failed else ""
    on_gpu = trial.loaded.pipeline.device.type == "cuda"
    memory = "allocated on the GPU, with the model" if on_gpu else "growth of this process"
    packs = "" if trial.packs else "; the model's chunks can't be packed"
    return (
        f"{trial.rows.num_rows:,} rows{failed}, {len(trial.chunks):,} chunks, "
        f"{int(trial.sizes.sum()):,} tokens{packs}. One process, at most {seconds:g} s a setting "
        f"(plus the batch that is running then). Memory: peak {memory}"
    )


def _place_plot(output: str) -> str:
    """Return a place beside the output, not in it: what is there belongs to the run."""
    folder = Path(output).parent
    here = "://" in output or not folder.is_dir() or not os.access(folder, os.W_OK)
    return str((Path() if here else folder) / "tune.png")
