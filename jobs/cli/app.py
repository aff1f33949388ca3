"""The command line: `pipemill run …` and the other verbs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

# Little before the command has its handlers: an interrupt while Python imports is a traceback.
from pipemill.errors import ConfigError, RunError, explain_interrupt

from ..execution.supervisor import delay_interrupts, handle_interrupts, report_status, supervise

if TYPE_CHECKING:
    from ..config.job import Job
    from ..output.run_report import Report


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 every row accounted for, 1 failed, 2 the command, the config or
    the model is wrong, 130 interrupted.

    Without arguments it is the command itself, and works in a supervised process.
    """
    if arguments is None:
        return command(sys.argv[1:])
    handle_interrupts()
    return _run_verb(arguments)


def command(arguments: list[str]) -> int:
    """Run the command line in a supervised process."""
    return supervise(lambda: _report_verb(arguments))


def _report_verb(arguments: list[str]) -> int:
    """Run a verb, and report its status when everything is written: before Ray shuts down, which
    may end the process."""
    status = 130
    try:
        from ..execution.ray_cluster import ray_until_end

        # No exception of a shutdown changes what was done.
        with suppress(Exception), ray_until_end():
            status = _status_of(arguments)
            report_status(status)
    except KeyboardInterrupt:  # one of several, at any moment
        status = _print_error(_interrupted(arguments), 130)
        report_status(status)
    return status


def _status_of(arguments: list[str]) -> int:
    try:
        return _run_verb(arguments)
    except SystemExit as end:  # argparse has said what is wrong
        return end.code if isinstance(end.code, int) else 1
    except Exception:  # a fault of pipemill
        traceback.print_exc()
        return 1


def _run_verb(arguments: list[str]) -> int:
    try:
        options = _parser().parse_args(arguments)
        status = options.run(options)
        sys.stdout.flush()
    except ConfigError as error:
        return _print_error(error, 2)
    except RunError as error:
        if error.report is not None:
            _print_result(error.report)
        return _print_error(error, 1)
    except KeyboardInterrupt as error:
        return _print_error(str(error) or _interrupted(arguments), 130)
    except BrokenPipeError:  # whoever was reading, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _run(options: argparse.Namespace) -> int:
    with explain_interrupt():
        with delay_interrupts():
            from ..preview import show
            from ..run import run

        job = _job(options)
        report = run(job)
        print(report, file=sys.stderr)
        show(report.output, job.output.storage_options, sys.stderr)
        print(report.to_json(), flush=True)
    return 0


def _print_result(report: Report) -> None:
    print(report, file=sys.stderr)
    print(report.to_json(), flush=True)


def _tasks(options: argparse.Namespace) -> int:
    from ..tasks import all_tasks, one_task

    print(one_task(options.name) if options.name else all_tasks(), flush=True)
    return 0


def _retry(options: argparse.Namespace) -> int:
    with explain_interrupt():
        with delay_interrupts():
            from ..retry import retry

        _print_result(retry(_job(options)))
    return 0


def _status(options: argparse.Namespace) -> int:
    from ..status import status

    found = status(options.output)
    print(found, file=sys.stderr)
    if options.splits:
        print(found.table(), file=sys.stderr)
    print(found.to_json(), flush=True)
    return 0


def _page(options: argparse.Namespace) -> int:
    from ..report import write_report

    path = write_report(options.output)
    print(f"written: {path}", file=sys.stderr)
    print(json.dumps({"output": options.output, "report": path}), flush=True)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from ..verify import verify

    found = verify(options.output, sample=options.sample)
    print(found, file=sys.stderr)
    print(found.to_json(), flush=True)
    return 0 if found.ok else 1


def _job(options: argparse.Namespace, needs_output: bool = True) -> Job:
    with delay_interrupts():
        from ..config.load import build_job

    columns, sections = _columns(options.column), _sections(options)
    return build_job(options.config, options.set, columns, sections, needs_output)


def _sections(options: argparse.Namespace) -> dict[str, Any]:
    sections: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("task", "model", "input", "output")
        if getattr(options, name) is not None
    }
    if isinstance(sections.get("input"), list) and len(sections["input"]) == 1:
        sections["input"] = sections["input"][0]
    if options.param:
        sections["parameters"] = _pairs(options.param)
    return sections


def _columns(assignments: list[str]) -> dict[str, str | None]:
    """As they are written: a column may be called `no`, or `2024`; NAME= is one not to read."""
    columns: dict[str, str | None] = {}
    for text in assignments:
        name, equals, column = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--column {text!r} is not of the form NAME=COLUMN")
        columns[name] = column or None
    return columns


def _pairs(assignments: list[str]) -> dict[str, Any]:
    with delay_interrupts():
        from ..config.load import parse_assignment

    return dict(parse_assignment(text) for text in assignments)


def _interrupted(arguments: list[str]) -> str:
    resumes = arguments[:1] in (["run"], ["retry"])
    return "interrupted; run again to resume" if resumes else "interrupted"


def _print_error(message: object, status: int) -> int:
    print(f"pipemill: {message}", file=sys.stderr, flush=True)
    return status


def _parser() -> argparse.ArgumentParser:
    from pipemill import __version__

    from . import inspection

    parser = argparse.ArgumentParser(
        prog="pipemill",
        description="Dataset-scale inference with Hugging Face task pipelines on Ray.",
    )
    parser.add_argument("--version", action="version", version=f"pipemill {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser(
        "run",
        help="run a job, or finish one that was stopped",
        description="Runs the job; run it again to resume. Nothing left to do is success.",
    )
    _job_flags(run)
    run.set_defaults(run=_run)
    _add_output_verbs(verbs)
    inspection.add_inspection_commands(
        verbs, _job_flags, lambda options: _job(options, needs_output=False)
    )
    tasks = verbs.add_parser(
        "tasks",
        help="tasks, the columns they read and add, their parameters",
        description="Lists the tasks; of one its columns, parameters and an example.",
    )
    tasks.add_argument("name", nargs="?", help="such as text-classification")
    tasks.set_defaults(run=_tasks)
    return parser


def _add_output_verbs(verbs: Any) -> None:
    """What is done with an output that a run has left."""
    retry = verbs.add_parser(
        "retry",
        help="try the dead letters of a job again",
        description="Computes only the dead letters again, and puts the answers in their places. "
        "Parameters, model.dtype, batching and actors may differ from the run's.",
    )
    _job_flags(retry)
    retry.set_defaults(run=_retry)
    status = verbs.add_parser("status", help="how far an output is, and who writes to it")
    status.add_argument("output", help="the folder or URL that a run writes to")
    status.add_argument("--splits", action="store_true", help="a line for each split, too")
    status.set_defaults(run=_status)
    page = verbs.add_parser("report", help="one HTML page about an output, written into it")
    page.add_argument("output", help="the folder or URL that a run writes to")
    page.set_defaults(run=_page)
    verify = verbs.add_parser(
        "verify", help="whether an output holds every row exactly once, as it was written"
    )
    verify.add_argument("output", help="the folder or URL that a run wrote to")
    verify.add_argument(
        "--sample",
        type=_count,
        default=0,
        metavar="N",
        help="compute N rows again, one by one, by plain transformers",
    )
    verify.set_defaults(run=_verify)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a number of rows, not {text!r}")
    return int(text)


def _job_flags(verb: argparse.ArgumentParser) -> None:
    """The flags that say which job it is."""
    verb.add_argument("config", nargs="?", help="a YAML file; flags override it")
    verb.add_argument("--task", help="such as text-classification")
    verb.add_argument("--model", help="a folder, or a name on the Hugging Face Hub")
    verb.add_argument(
        "--input", action="append", help="a file, folder, glob or URL; may be given again"
    )
    verb.add_argument("--output", help="a folder or URL")
    verb.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="the input column that the task reads as NAME; NAME= for none",
    )
    verb.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=YAML",
        help="a parameter of the pipeline, such as top_k=3",
    )
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=YAML",
        help="any key of the config, such as output.rows_per_part=300",
    )


if __name__ == "__main__":
    sys.exit(main())
