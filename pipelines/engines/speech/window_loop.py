"""Encode and write down the windows of many recordings: one that ends makes room for another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from ..generation.shared_loop import SharedLoop
from .window_decoder import Window, WindowDecoder


class WaitingCall:
    """A call, as of the encoder, that waits for its turn.

    Attributes:
        output: what it returned.
        error: what it raised, or why it does not run.
        has_run: whether it ran.
    """

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run
        self.output: Any = None
        self.error: BaseException | None = None
        self.has_run = False

    @property
    def is_done(self) -> bool:
        return self.error is not None or self.has_run


class WindowLoop:
    """The windows that one model encodes and writes down, of any number of threads.

    One thread computes at a time, for all of them.
    """

    def __init__(self, decoder: WindowDecoder) -> None:
        self.decoder = decoder
        self.running: list[Window] = []
        self._waiting: list[Window] = []
        self._calls: list[WaitingCall] = []
        self._loop = SharedLoop()
        self._lock = threading.Lock()

    def compute(self, run: Callable[[], Any]) -> Any:
        """Return what a call returns, while nothing else computes. Raise what it raises."""
        call = WaitingCall(run)
        with self._lock:
            self._calls.append(call)
        self._loop.run(self._take_turn, lambda: call.is_done)
        if call.error is not None:
            raise call.error
        return call.output

    def write(self, window: Window) -> None:
        """Write a window down. Raise what its computation raises."""
        with self._lock:
            self._waiting.append(window)
        self._loop.run(self._take_turn, lambda: window.is_done)
        if window.error is not None:
            raise window.error

    def end(self, error: BaseException) -> None:
        """Make all threads that wait raise an error."""
        with self._lock:
            waiting: list[WaitingCall | Window] = [*self._calls, *self._waiting, *self.running]
            self._calls, self._waiting = [], []
        for one in waiting:
            one.error = error

    def _take_turn(self) -> None:
        """Begin windows that wait and make a call, or write a token of each window that runs."""
        with self._lock:
            calls, self._calls = self._calls[:1], self._calls[1:]
            waiting, self._waiting = self._waiting, []
        with torch.no_grad():
            for window in waiting:
                self._try([window], lambda window=window: self.decoder.begin(window))  # type: ignore[misc]
            for call in calls:
                try:
                    call.output = call.run()
                except BaseException as error:
                    call.error = error
                call.has_run = True
            if not calls and not waiting and self.running:
                self._try(self.running, lambda: self.decoder.step(self.running))
        self.running = [one for one in [*self.running, *waiting] if not one.is_done]

    def _try(self, windows: list[Window], run: Callable[[], None]) -> None:
        """Compute something for windows. An error ends them: their threads raise it."""
        try:
            run()
        except BaseException as error:
            for window in windows:
                window.release()
                window.error = window.error or error
