"""The progress of a run, on stderr: what it waits for, and then a bar.

The bar shows rows, rows/s, time left and dead letters. It starts at the rows that the output
already has. Its rate and time left are those of the rows computed now, without the wait before
them.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from ..monitoring.messages import is_terminal, shows_text, write_event
from .supervisor import check_interrupts

# How often a wait is updated.
_LOOK_S = 1.0
# How often the bar is updated. In a log file each time is a new line.
_TERMINAL_S, _NOTEBOOK_S, _LOG_S = 0.2, 0.5, 10.0


def log(text: str) -> None:
    """Write a line to stderr, without breaking a bar."""
    write_event("message", text)
    if shows_text():
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def lock_bars_by_threads() -> None:
    """Let the bars of this process share no lock with other processes, as tqdm's usually do.

    From Python 3.14 on, who ends without removing such a lock is warned of it.
    """
    tqdm.set_lock(threading.RLock())


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _find_notebook_bar() -> type[tqdm]:
    """Return a bar that is a widget if ipywidgets are installed, else a line of text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a TqdmWarning, which asks for ipywidgets
        from tqdm.auto import tqdm as notebook_bar
    return notebook_bar


if is_notebook():
    # Before another library imports it, and with it the warning.
    _find_notebook_bar()
    # Ray's request to install ipywidgets, when its classes of datasets are imported.
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)


def _choose_pause(in_notebook: bool) -> float:
    if in_notebook:
        return _NOTEBOOK_S
    return _TERMINAL_S if is_terminal(sys.stderr) else _LOG_S


class Wait:
    """Shows what a run waits for: on a terminal in one line with the seconds, else a line each."""

    def __init__(self, label: str = "") -> None:
        self._label, self._text = label, ""
        self._line: tqdm | None = None

    def show(self, text: str) -> None:
        """Show what the run waits for now; call it every second to update the seconds."""
        if text == self._text:
            if self._line is not None:
                self._line.refresh()  # the seconds
            return
        self._text = text
        if not shows_text() or not is_terminal(sys.stderr):
            log(f"{self._label}{text}")
            return
        if self._line is not None:
            self._line.set_description_str(f"{self._label}{text} ")
            return
        self._line = tqdm(bar_format="{desc}[{elapsed}]", file=sys.stderr, leave=False, delay=1e-9)
        self._line.set_description_str(f"{self._label}{text} ")

    def end(self) -> None:
        """Remove the line from the terminal."""
        if self._line is not None:
            self._line.close()
            self._line = None


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show, for the time of a block, that the run waits for this."""
    wait = Wait()
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(_LOOK_S):
            wait.show(text)

    wait.show(text)
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        ended.set()
        ticker.join()
        wait.end()


class Progress:
    """A bar of the rows that are done; use it as a context manager.

    Attributes:
        label: text before the bar.
        total: the rows to do, as far as known; 0 if unknown.
        before: rows that the output already has.
        dead: dead letters, those of the output included.
        rows: rows that were done in this run.
        bar: the bar, once the first rows are done.
    """

    def __init__(
        self,
        label: str,
        total: int,
        before: Mapping[str, int] | None = None,
        stage: Callable[[], tuple[str, bool]] | None = None,
    ) -> None:
        """Make a bar, which appears when the first rows are done.

        Args:
            label: text before the bar.
            total: the rows to do, as far as known; 0 if unknown.
            before: `rows` that the output already has, and how many of them are `dead`.
            stage: returns what the run waits for until the first rows are done, and whether it is
                computing; called every second, in a thread.
        """
        self.label, self.total = label, total
        self.before, self.dead = (before or {}).get("rows", 0), (before or {}).get("dead", 0)
        self.rows = 0
        self.bar: tqdm | None = None
        self._stage = stage
        self._computing_since: float | None = None
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Progress:
        if self._stage is not None:
            self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_wait()
        if self.bar is not None:
            self.bar.close()

    def add(self, rows: int, dead: int, total: int) -> None:
        """Count a finished split.

        Args:
            rows: rows of the split.
            dead: how many of them are dead letters.
            total: rows that the run is now expected to do in all.
        """
        check_interrupts()
        self.rows += rows
        self.dead += dead
        if self.bar is None:
            self._end_wait()
            if not shows_text():
                return
            self.bar = self._make_bar(rows)
        self.bar.total = self.before + max(total, self.rows)
        if (widget := getattr(self.bar, "container", None)) is not None:
            widget.children[1].max = self.bar.total  # which tqdm sets only once
        self.bar.set_postfix_str(f"{self.dead} dead letter{'s' * (self.dead != 1)}", refresh=False)
        self.bar.update(rows)

    def _make_bar(self, first: int) -> tqdm:
        """Make the bar. first: rows that are done now; when they were started may be unknown."""
        in_notebook = is_notebook()
        bar = (_find_notebook_bar() if in_notebook else tqdm)(
            total=self.before + self.total or None,
            initial=self.before,
            desc=self.label,
            unit=" rows",
            file=sys.stderr,
            mininterval=_choose_pause(in_notebook),
            dynamic_ncols=True,
            delay=1e-9,  # nothing to show before the first rows are counted
        )
        if self._computing_since is None:
            bar.initial += first
        else:
            bar.start_t = bar.last_print_t = self._computing_since
        return bar

    def _watch(self) -> None:
        assert self._stage is not None
        wait = Wait(f"{self.label}: ")
        try:
            while True:
                text, computing = self._stage()
                if computing and self._computing_since is None:
                    self._computing_since = time.time()
                wait.show(text)
                if self._ended.wait(_LOOK_S):
                    return
        finally:
            wait.end()

    def _end_wait(self) -> None:
        self._ended.set()
        if self._watcher.is_alive():
            self._watcher.join()
