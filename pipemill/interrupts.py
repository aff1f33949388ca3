"""Delay interrupts where they would leave something half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Of a key, of `kill`, of a terminal that is closed, and what a supervisor forwards them as.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


@contextmanager
def delay_interrupts() -> Iterator[None]:
    """Delay interrupts to the end of a block, such as an import.

    A library in C++ whose import was interrupted can't be imported again: torch then ends the
    process, which in a notebook holds all that the user has. One in Rust panics.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return
    arrived: list[int] = []
    handlers: dict[int, Callable[..., Any]] = {}

    def record(number: int, _: object) -> None:
        arrived.append(number)

    try:
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, record)
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is record:
                signal.signal(number, handler)
        for number in dict.fromkeys(arrived):
            handlers[number](number, None)
