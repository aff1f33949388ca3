"""The command line: `pipemill run …` and the other verbs."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TextIO, TypeVar

# Little before the command has its handlers: an interrupt while Python imports is a traceback.
from pipemill.errors import ConfigError, RunError

from ..execution.supervisor import delay_interrupts, handle_interrupts, report_status, supervise
from ..monitoring.messages import (
    choose_style,
    has_lost_reader,
    tolerate_lost_messages,
    write_error,
)
from .machine_limits import advise

Verb = Callable[[], int]
Result = TypeVar("Result")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line in this process, or in a supervised one if no arguments are given.

    Returns:
        The exit status: 0 if every row is accounted for, 1 for a failure, 2 if the command line,
        the config or the model is wrong, 130 after an interrupt.
    """
    if arguments is None:
        return command(sys.argv[1:])
    handle_interrupts()
    try:
        return _explain_errors(arguments, lambda: parse_verb(arguments)())
    finally:
        choose_style(as_json=False, quiet=False)


def command(arguments: list[str]) -> int:
    """Run the command line in a supervised process, and return the exit status."""
    _use_utf8()
    _open_standard_streams()
    tolerate_lost_messages()
    return _explain_errors(
        arguments, lambda: supervise(lambda: _run_and_report(arguments), _explain_end)
    )


def _use_utf8() -> None:
    """Begin again in Python's UTF-8 mode, where the locale has another encoding (LC_ALL=C).

    Names of files are UTF-8 nearly everywhere, whatever the locale says.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _open_standard_streams() -> None:
    """Open what was closed (`>&-`), to nowhere.

    The next file would take its number, and what libraries print would go into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)

    def open_nowhere(mode: Literal["r", "w"]) -> TextIO:
        # Not 0 to 2: a library that was imported before may hold a file of its own there.
        return os.fdopen(os.open(os.devnull, os.O_RDWR), mode)

    sys.stdin = sys.stdin or open_nowhere("r")
    sys.stdout = sys.stdout or open_nowhere("w")
    sys.stderr = sys.stderr or open_nowhere("w")


def parse_verb(arguments: list[str]) -> Verb:
    """Return what the arguments ask for.

    Raises:
        SystemExit: The command line is wrong, or all it asked for is done, such as help.
    """
    with delay_interrupts():
        from .commands import app
        from .parser import UsageError, parse

        try:
            return parse(app, arguments)
        except UsageError as error:
            raise SystemExit(_print_error(error, 2)) from None


def _explain_end(reason: str, as_json: bool) -> None:
    choose_style(as_json=as_json, quiet=False)
    if not as_json:  # a bar may stand in the line
        print(file=sys.stderr)
    write_error(reason)


def _run_and_report(arguments: list[str]) -> int:
    """Run a verb, and report its status when everything is written: before Ray shuts down, which
    may end the process."""
    status: int | None = None
    try:
        verb = _explain_errors(arguments, lambda: parse_verb(arguments))
        if isinstance(verb, int):
            status = verb
            report_status(status)
            return status
        with delay_interrupts():
            from ..execution.progress import lock_bars_by_threads
            from ..execution.ray_cluster import ray_until_end

            lock_bars_by_threads()
        # No exception of a shutdown changes what was done.
        with suppress(Exception), ray_until_end():
            status = _explain_errors(arguments, verb)
            report_status(status)
    except KeyboardInterrupt:  # one of several, at any moment
        if status is None:  # otherwise the reason is printed
            status = _print_error(_describe_interrupt(arguments), 130)
        report_status(status)
    return 130 if status is None else status


def _explain_errors(arguments: list[str], work: Callable[[], Result]) -> Result | int:
    """Return what `work` returns, or after an exception a message and the exit status."""
    try:
        result = work()
        sys.stdout.flush()
        return result
    except ConfigError as error:
        return _print_error(error, 2)
    except RunError as error:
        if error.report is not None:
            from .console import print_result

            print_result(error.report)
        return _print_error(error, 1)
    except KeyboardInterrupt as error:
        return _print_error(str(error) or _describe_interrupt(arguments), 130)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:
        if isinstance(error, BrokenPipeError) and has_lost_reader():
            return 0
        if (advice := advise(error)) is not None:
            # NumPy explains itself on a page, and says in the last line what happened.
            said = str(error).strip().splitlines() or [type(error).__name__]
            return _print_error(f"{said[-1]}: {advice}", 1)
        traceback.print_exc()  # a fault of pipemill
        return 1


def _describe_interrupt(arguments: list[str]) -> str:
    resumes = arguments[:1] in (["run"], ["retry"])
    return "interrupted; run again to resume" if resumes else "interrupted"


def _print_error(message: object, status: int) -> int:
    write_error(str(message))
    report_status(status)  # before the error is freed, whose traceback may hold objects of Ray
    return status


if __name__ == "__main__":
    sys.exit(main())
