"""The verbs that compute some rows in this process and leave the output alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config.job import Job

_SECONDS = 10.0


def add_inspection_commands(
    verbs: Any,
    add_job_flags: Callable[[argparse.ArgumentParser], None],
    job_of: Callable[[argparse.Namespace], Job],
) -> None:
    """`tune`, `plan` and `preview`, each with a job's flags."""
    tune = verbs.add_parser(
        "tune",
        help="measure which batches are fastest for this model on these rows",
        description="Measures batch sizes and budgets on some rows; writes a plot, nothing else.",
    )
    tune.add_argument(
        "--plot", metavar="PATH", help="its file (tune.png beside the output, or here)"
    )
    plan = verbs.add_parser(
        "plan",
        help="what a job will be: rows, lengths, losses, padding, time",
        description="Samples the input and computes some of its rows; writes nothing.",
    )
    preview = verbs.add_parser(
        "preview",
        help="the answers of a few rows",
        description="Computes the first rows; writes nothing.",
    )
    for verb, flags, rows in (
        (tune, ["--rows"], 256),
        (plan, ["--rows"], 1000),
        (preview, ["-n", "--rows"], 5),
    ):
        verb.add_argument(*flags, type=_count, default=rows, help=f"how many; else {rows}")
        add_job_flags(verb)
    for verb in (tune, plan):
        verb.add_argument(
            "--seconds",
            type=_seconds,
            default=_SECONDS,
            help=f"the most for each setting that is measured; else {_SECONDS:g}",
        )
    tune.set_defaults(run=lambda options: _tune(job_of(options), options))
    plan.set_defaults(run=lambda options: _plan(job_of(options), options))
    preview.set_defaults(run=lambda options: _preview(job_of(options), options))


def _tune(job: Job, options: argparse.Namespace) -> int:
    from ..tune import tune

    return _tell(tune(job, options.rows, options.seconds, options.plot, _note))


def _plan(job: Job, options: argparse.Namespace) -> int:
    from ..plan import estimate

    return _tell(estimate(job, options.rows, options.seconds))


def _preview(job: Job, options: argparse.Namespace) -> int:
    from ..preview import preview

    found = preview(job, options.rows)
    _tell(found)
    return 1 if found.all_failed else 0


def _tell(found: Any) -> int:
    print(found, file=sys.stderr)
    print(found.to_json(), flush=True)
    return 0


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of at least 1, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"seconds, more than 0, not {text!r}")
    return seconds
