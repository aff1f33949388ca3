"""What a run says meanwhile, on stderr: what it waits for, and then a bar.

The bar shows rows, rows/s, time left and dead letters. It starts with the rows that the output has
already; its rate and time left are those of the rows computed now, without the wait before.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from .supervisor import check_interrupts

# What is waited for is looked up this often.
_LOOK_S = 1.0
# In a log file the bar is a line now and then; on a terminal it moves.
_PAUSE_S = {True: 0.2, False: 10.0}


def log(text: str) -> None:
    """Write a line."""
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()


class Wait:
    """Show what a run waits for: on a terminal in one line with the seconds, else a line each."""

    def __init__(self, label: str = "") -> None:
        self._label, self._text = label, ""
        self._line: tqdm | None = None

    def show(self, text: str) -> None:
        if text == self._text:
            if self._line is not None:
                self._line.refresh()  # the seconds
            return
        self._text = text
        if not sys.stderr.isatty():
            log(f"{self._label}{text}")
            return
        if self._line is not None:
            self._line.set_description_str(f"{self._label}{text} ")
            return
        self._line = tqdm(bar_format="{desc}[{elapsed}]", file=sys.stderr, leave=False, delay=1e-9)
        self._line.set_description_str(f"{self._label}{text} ")

    def end(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show that the run waits for this."""
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
    """Rows that are done, of those that there are.

    total: the rows to do, as far as is known; 0 if it is not.
    before: `rows` that the output has already, and how many of these are `dead`.
    stage: what is waited for until the first rows are done, and whether it is the computing; asked
        every second, in a thread.
    """

    def __init__(
        self,
        label: str,
        total: int,
        before: Mapping[str, int] | None = None,
        stage: Callable[[], tuple[str, bool]] | None = None,
    ) -> None:
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
        """Counts a finished split, after which so many rows are expected in all."""
        check_interrupts()
        self.rows += rows
        self.dead += dead
        if self.bar is None:
            self._end_wait()
            self.bar = self._new_bar(rows)
        self.bar.total = self.before + max(total, self.rows)
        self.bar.set_postfix_str(f"{self.dead} dead letters", refresh=False)
        self.bar.update(rows)

    def _new_bar(self, first: int) -> tqdm:
        """first: rows that are done now; since when they were computed may be unknown."""
        bar = tqdm(
            total=self.before + self.total or None,
            initial=self.before,
            desc=self.label,
            unit=" rows",
            file=sys.stderr,
            mininterval=_PAUSE_S[sys.stderr.isatty()],
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
