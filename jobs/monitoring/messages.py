"""What a command says on stderr: text for a reader, lines of JSON for a program, or only errors."""

from __future__ import annotations

import io
import json
import os
import select
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO

from pipemill.errors import escape_controls

_json = _quiet = False


def choose_style(*, as_json: bool, quiet: bool) -> None:
    """Choose how this process says things from now on. quiet: it says only errors."""
    global _json, _quiet
    _json, _quiet = as_json, quiet


class _LastingStream(io.TextIOWrapper):
    """Leads nowhere as soon as it can't be written: its reader has gone, or its disk is full."""

    is_lost = False
    beneath: IO[str] | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._lead_nowhere()
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._lead_nowhere()

    def _lead_nowhere(self) -> None:
        self.is_lost = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        with suppress(OSError):
            super().flush()  # what it still holds


def tolerate_lost_messages() -> None:
    """Let no message that can't be written to stderr end the command."""
    stderr = sys.stderr
    if type(stderr) is io.TextIOWrapper:
        lasting = _LastingStream(stderr.buffer, stderr.encoding, stderr.errors, line_buffering=True)
        lasting.beneath = stderr  # which would close the buffer if nothing held it
        sys.stderr = lasting


def are_messages_lost() -> bool:
    """Return whether stderr could not be written: nobody reads what this process says."""
    return isinstance(sys.stderr, _LastingStream) and sys.stderr.is_lost


def has_lost_reader() -> bool:
    """Return whether the reader of stdout, perhaps `head`, has seen enough; it then leads nowhere.

    What failed to be written may have been for another pipe.
    """
    stdout = sys.stdout.fileno()
    poll = select.poll()
    poll.register(stdout, 0)
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return True


def shows_text() -> bool:
    """Return whether bars, tables and messages for a reader are shown."""
    return not (_json or _quiet) and sys.stderr is not None  # None: a program without a terminal


def writes_json() -> bool:
    """Return whether events are written as JSON."""
    return _json and not _quiet


def write_event(event: str, text: str) -> None:
    """Write an event that has a text, if events are written."""
    if writes_json():
        _write_json(event, text)


def write_error(text: str) -> None:
    """Write an error, whatever else is said."""
    if _json:
        _write_json("error", text)
    else:
        print(f"pipemill: {escape_controls(text)}", file=sys.stderr, flush=True)


def _write_json(event: str, text: str) -> None:
    time = datetime.now(UTC).isoformat(timespec="seconds")
    write_line(json.dumps({"event": event, "time": time, "text": text}))


def write_line(line: str) -> None:
    """Write a line at once: `print` writes its end apart, and another thread may come between."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def is_terminal(file: IO[str]) -> bool:
    """Return whether a person reads this file as it is written."""
    isatty = getattr(file, "isatty", None)  # what a program writes to instead may have none
    return isatty is not None and isatty() and os.environ.get("TERM") != "dumb"
