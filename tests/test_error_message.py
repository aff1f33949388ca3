"""Exceptions whose message can't be had, or written, are a row's fault like any other."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from pipemill.actors.batch import Failure
from pipemill.actors.faults.bisect import bisect_failures
from pipemill.actors.faults.blame import is_out_of_memory

from pipemill.errors import error_message


class Mute(RuntimeError):
    def __str__(self) -> str:
        raise KeyError("no text")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("plain"), "plain"),
        (ValueError("half a \ud800 character"), "half a ? character"),
        (Mute(), "(its message raises KeyError)"),
        (GeneratorExit(), ""),
        (asyncio.CancelledError("no more"), "no more"),
    ],
)
def test_it_is_a_text_that_a_file_holds(error, message):
    assert error_message(error) == Failure.of("forward", error).message == message
    assert not is_out_of_memory(error)

    def run(items):
        if 2 in items:
            raise error
        return items

    pieces, failed = bisect_failures(np.arange(5), run)
    assert [row for row, _ in failed] == [2]
    assert sum(len(items) for items, _ in pieces) == 4
