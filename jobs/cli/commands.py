"""The verbs: each reads its options, calls the function of its name, and returns the exit status.

What a verb needs is imported when it runs: `pipemill --help` needs little.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from pipemill.errors import explain_interrupt

from ..execution.supervisor import delay_interrupts, report_json
from ..monitoring.messages import choose_style, shows_text
from .console import print_blocks, print_result, write_text
from .job_options import JobOptions, takes_job
from .option_values import parse_variables
from .options import (
    Address,
    Code,
    Dataset,
    FirstRows,
    LogFormat,
    OnChanged,
    OtherEngines,
    Out,
    Output,
    Plot,
    PricePerHour,
    Private,
    PushToHub,
    Quiet,
    Replicas,
    Retries,
    Rows,
    Sample,
    Seconds,
    Splits,
    TaskName,
    Variables,
    Waits,
    Watch,
    WorkingDir,
)
from .parser import Command, Group

_START, _BEFORE, _AFTER = "Run a job", "Before a run", "After a run"

app = typer.Typer(
    cls=Group,
    help="Dataset-scale inference with Hugging Face task pipelines on Ray.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="VERB …",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pipemill import __version__

        print(f"pipemill {__version__}", flush=True)
        raise typer.Exit


@app.callback()
def pipemill(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Dataset-scale inference with Hugging Face task pipelines on Ray."""


@app.command(cls=Command, rich_help_panel=_START)
@takes_job
def run(
    options: JobOptions,
    push_to_hub: PushToHub = None,
    private: Private = False,
    on_changed: OnChanged = "error",
    quiet: Quiet = False,
    log_format: LogFormat = "text",
) -> int:
    """Run a job, or finish one that was stopped.

    Run it again to resume. If nothing is left to do, that is success.
    """
    _choose_style(quiet, log_format)
    with explain_interrupt():
        with delay_interrupts():
            from ..preview import read_first_rows
            from ..run import run

        job = options.build()
        report = run(
            job,
            push_to_hub=push_to_hub,
            private=private or None,
            on_changed=on_changed,  # type: ignore[arg-type]
        )
        print_blocks(report.blocks(), sys.stderr)
        if shows_text():
            print_blocks(read_first_rows(report.output, job.output.storage_options), sys.stderr)
        print(report.to_json(), flush=True)
    return 0


@app.command(cls=Command, rich_help_panel=_START)
@takes_job
def retry(options: JobOptions, quiet: Quiet = False, log_format: LogFormat = "text") -> int:
    """Try the dead letters of a job again.

    Only the rows of dead letters are computed, and their answers put in place. Parameters,
    model.dtype, batching and actors may differ from the run's.
    """
    _choose_style(quiet, log_format)
    with explain_interrupt():
        with delay_interrupts():
            from ..retry import retry

        print_result(retry(options.build()))
    return 0


@app.command(cls=Command, rich_help_panel=_START)
@takes_job
def submit(
    options: JobOptions,
    address: Address,
    wait: Waits = False,
    retries: Retries = 0,
    env: Variables = None,
    working_dir: WorkingDir = None,
    code: Code = "here",
    on_changed: OnChanged = "error",
) -> int:
    """Run a job on a Ray cluster that is elsewhere.

    Without --wait, stdout has the job's id. With it, stderr has the job's log, and stdout the
    job's line of JSON.
    """
    with delay_interrupts():
        from ..submit import submit

    job = submit(
        **options.arguments(),
        address=address,
        working_dir=working_dir,
        env=parse_variables(env or []),
        retries=retries,
        code=code,  # type: ignore[arg-type]
        on_changed=on_changed,  # type: ignore[arg-type]
    )
    print_blocks(job.blocks(), sys.stderr)
    if not wait:
        print(job.to_json(), flush=True)
        return 0
    status = job.wait(_log)
    if line := job.result_line():
        print(line, flush=True)
    return status


@app.command(cls=Command, rich_help_panel=_AFTER)
def status(output: Output, splits: Splits = False, watch: Watch = False) -> int:
    """Show how far an output is, and who writes to it.

    With --watch follow its run to the end, from any machine: rows/s, time left, what binds it. If
    that leaves rows to do, the exit status is 1.
    """
    from ..status import status

    if watch:
        from ..monitoring.watch_run import watch_run

        watch_run(output)
    found = status(output)
    print_blocks(found.blocks(), sys.stderr)
    if splits:
        print_blocks([found.table()], sys.stderr)
    print(found.to_json(), flush=True)
    return 1 if watch and found.splits_left else 0


@app.command(cls=Command, rich_help_panel=_AFTER)
def dashboard(out: Out = None) -> int:
    """Write a Grafana dashboard of the metrics that runs on Ray export."""
    from ..dashboard import dashboard

    text = json.dumps(dashboard(), indent=2)
    if out is None:
        print(text, flush=True)
        return 0
    write_text(out, f"{text}\n")
    print(f"written: {out}", file=sys.stderr)
    return 0


@app.command(cls=Command, rich_help_panel=_AFTER)
def report(output: Output) -> int:
    """Write an HTML page about an output into it."""
    from pipemill.actors.output.layout import REPORT

    from ..report import report

    path = report(output)
    print(f"written: {path}", file=sys.stderr)
    print(json.dumps({"output": path.removesuffix(f"/{REPORT}"), "report": path}), flush=True)
    return 0


@app.command(cls=Command, rich_help_panel=_AFTER)
def push(output: Output, name: Dataset, private: Private = False) -> int:
    """Publish the rows of a complete output as a dataset on the Hugging Face Hub."""
    from ..push import push

    print_result(push(output, name, private=private or None))
    return 0


@app.command(cls=Command, rich_help_panel=_AFTER)
def verify(output: Output, sample: Sample = 0) -> int:
    """Check that an output holds every row exactly once, as it was written."""
    from ..verify import verify

    found = verify(output, sample=sample)
    print_result(found)
    return 0 if found.ok else 1


@app.command(cls=Command, rich_help_panel=_BEFORE)
@takes_job
def tune(
    options: JobOptions,
    rows: Rows = 256,
    seconds: Seconds = 10.0,
    plot: Plot = None,
    engines: OtherEngines = None,
) -> int:
    """Measure which batches are fastest for this model on these rows.

    Batch sizes and token budgets are measured on some rows. Only a plot is written.
    """
    job = options.build(needs_output=False)
    from ..tune import tune

    found = tune(job, rows=rows, seconds=seconds, plot=plot, log=_log, engines=engines)
    print_result(found)
    return 0


@app.command(cls=Command, rich_help_panel=_BEFORE)
@takes_job
def plan(
    options: JobOptions,
    rows: Rows = 1000,
    seconds: Seconds = 10.0,
    replicas: Replicas = None,
    price_per_hour: PricePerHour = None,
    engines: OtherEngines = None,
) -> int:
    """Estimate a job: rows, lengths, losses, padding, time, cost.

    Some rows of the input are read, and some of these computed. Nothing is written.
    """
    job = options.build(needs_output=False)
    from ..plan import plan

    found = plan(
        job,
        rows=rows,
        seconds=seconds,
        replicas=replicas,
        price_per_hour=price_per_hour,
        engines=engines,
    )
    print_result(found)
    return 0


@app.command(cls=Command, rich_help_panel=_BEFORE)
@takes_job
def preview(options: JobOptions, rows: FirstRows = 5) -> int:
    """Compute the first rows and show them.

    Nothing is written.
    """
    job = options.build(needs_output=False)
    from ..preview import preview

    found = preview(job, rows=rows)
    print_result(found)
    return 1 if found.all_failed else 0


@app.command(cls=Command, rich_help_panel=_BEFORE)
def tasks(name: TaskName = None) -> int:
    """List the tasks, or describe one: columns, parameters, an example."""
    from ..tasks import describe_task, tasks

    if name:
        print(describe_task(name), flush=True)
    else:
        print_blocks(tasks().blocks(), sys.stdout)
    return 0


def _choose_style(quiet: bool, log_format: str) -> None:
    choose_style(as_json=log_format == "json", quiet=quiet)
    if log_format == "json":
        report_json()


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
