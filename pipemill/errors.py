"""The ways a job ends without success. In a notebook each shows itself as its message alone."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING
from unicodedata import is_normalized

from .interrupts import finish_critical_sections

if TYPE_CHECKING:
    from pipemill.jobs.output.run_report import Report


class _OneLineInNotebooks:
    """An exception whose message says all that a user needs."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(_OneLineInNotebooks, ValueError):
    """The job as written can't run; said before rows are computed. Exit status 2."""


class RunError(_OneLineInNotebooks, RuntimeError):
    """The job ended without success. Exit status 1.

    report: what the output holds, if every row is accounted for; else None, and rows are left.
    """

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


class ModelError(ConfigError, RunError):
    """The model can't be loaded as the job names it, which only loading shows. Exit status 2."""


class RunInterrupted(_OneLineInNotebooks, KeyboardInterrupt):
    """The user stopped it. Exit status 130."""


class StoreError(RuntimeError):
    """The store of a job's input or output did not answer, however often it was asked: the next
    split would fail alike."""


@contextmanager
def explain_interrupt(message: str = "interrupted; run again to resume") -> Iterator[None]:
    """Raise RunInterrupted with this message for an interrupt in the block.

    It waits for the end of what must not be left halfway.
    """
    try:
        with finish_critical_sections():
            yield
    except KeyboardInterrupt as error:
        if type(error) is not KeyboardInterrupt:  # it says more already
            raise
        raise RunInterrupted(message) from None


@contextmanager
def explain_missing_library() -> Iterator[None]:
    """Raise ConfigError if a row in the block shows that a library is missing."""
    try:
        yield
    except ImportError as error:
        if not getattr(error, "no_rows_fault", False):
            raise
        raise ConfigError(str(error)) from None


_MOST_COLUMNS = 50  # in a message


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint to end an error message with: the nearest right name, or all of them."""
    names = list(names)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {_quote(near[0])}?" if near else f"there are: {', '.join(names)}"


def name_columns(name: str, names: Iterable[str]) -> str:
    """Return a hint on a column as `did_you_mean` does, which always names all columns."""
    names = list(names)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return (
        f"did you mean {_quote(near[0])}? ({list_columns(names)})" if near else list_columns(names)
    )


def list_columns(names: Sequence[str]) -> str:
    """Return the names of columns for a message, or the first ones and how many there are."""
    more = f", … ({len(names):,} in all)" if len(names) > _MOST_COLUMNS else ""
    shown = (name if _is_plain(name) else _quote(name) for name in names[:_MOST_COLUMNS])
    return f"columns: {', '.join(shown)}{more}"


def _quote(name: str) -> str:
    """Return a name in quotes, with escapes for characters that look like others, or like none."""
    return repr(name) if _is_plain(name.strip(" ")) else ascii(name)


def _is_plain(name: str) -> bool:
    """Tell whether a name can be typed as it shows: it is written in composed characters (NFC)."""
    return name.isprintable() and name == name.strip() != "" and is_normalized("NFC", name)


def error_message(error: BaseException) -> str:
    """Return an exception's message as valid UTF-8.

    `str(error)` may itself raise, or hold a lone surrogate.
    """
    try:
        message = str(error)
    except Exception as other:
        message = f"(its message raises {type(other).__name__})"
    return message.encode(errors="replace").decode()


def describe_error(error: BaseException) -> str:
    """Return an exception's class and message on one line."""
    return f"{type(error).__name__}: {' '.join(error_message(error).split())}"


# A terminal obeys them, and they may come from a row, a file's name or an error: they are shown.
_CONTROLS = {
    code: repr(chr(code))[1:-1]
    for code in (*range(32), *range(127, 160))
    if chr(code) not in "\t\n"
}


def escape_controls(text: str) -> str:
    """Return a text with its control characters as Python writes them, such as `\\x1b`."""
    return text.translate(_CONTROLS)


def explain_no_write(output: str, error: Exception) -> ConfigError | RunError:
    """Return the error of an output that can't be written to. A full disk may have room later."""
    message = f"can't write to the output {output}: {describe_error(error)}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"{message}; make room, and run again")
    return ConfigError(message)
