"""Texts that wait while another one is computed alone, for as long as that takes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from pipemill.actors.faults import watchdog
from pipemill.actors.faults.watchdog import mark_progress, watch_stage
from pipemill.pipelines.engines.generation.decoding_loop import DecodingLoop
from pipemill.pipelines.engines.generation.shared_loop import SharedLoop


def make_loop():
    """A loop without a model, whose texts end as soon as they begin."""
    loop = DecodingLoop.__new__(DecodingLoop)
    loop.pipeline = SimpleNamespace(device_placement=nullcontext)
    loop.decoder = SimpleNamespace(shares=False, joins_late=False)
    loop.most, loop.steps, loop.running, loop.waiting = 1, 0, [], []
    loop._loop, loop._lock, loop._computing = SharedLoop(), threading.Lock(), threading.Lock()

    def admit(most):
        for one in loop.waiting:
            one.is_done = True

    loop._admit = admit
    return loop


@pytest.mark.parametrize("steps", [10, 2])
def test_threads_that_wait_for_a_text_alone_hang_only_if_it_does(monkeypatch, steps):
    reasons: list[str] = []
    for name, seconds in (("LEAST_S", 0.5), ("FIRST_S", 0.5), ("FACTOR", 1), ("_watching", None)):
        monkeypatch.setattr(watchdog, name, seconds)
    monkeypatch.setattr(watchdog, "end_this_process", lambda reason, _: reasons.append(reason))
    watchdog._paces.clear()
    loop, paused = make_loop(), threading.Event()

    def compute_alone():
        with watch_stage("forward"), loop.pause():
            paused.set()
            for _ in range(steps):
                time.sleep(0.15)
                mark_progress()
            time.sleep(1.5 - steps * 0.15)

    def write():
        with watch_stage("forward"):
            loop.write([SimpleNamespace(inputs={}, is_done=False)])

    with ThreadPoolExecutor(3) as threads:
        alone = threads.submit(compute_alone)
        paused.wait()
        for one in (alone, threads.submit(write), threads.submit(write)):
            one.result()
    assert bool(reasons) == (steps < 10)
