"""Run a contender in a separate process, with a time limit."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

LIMIT_S = 100


def in_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call it in a new process; an error or a time limit is its result."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(LIMIT_S) else {"error": f"not done in {LIMIT_S} s"}
    except EOFError:
        found = {"error": "the process died"}
    process.kill()
    process.join()
    return found


def _send(pipe: Any, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    try:
        pipe.send(function(*arguments))
    except BaseException:
        pipe.send({"error": traceback.format_exc()[-1500:]})
