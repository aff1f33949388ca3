"""Processes of an engine end with the process that started them, and their end is told."""

from __future__ import annotations

import gc
import multiprocessing
import queue
import subprocess
import sys
import time

import psutil
from pipemill.pipelines.engines.generation.engine_processes import (
    end_with,
    note_processes,
    tell_end,
)

_WORKER = """
import multiprocessing, signal, time
from pipemill.pipelines.engines.generation.engine_processes import end_with, note_processes

class Engine:
    pass

if __name__ == "__main__":
    with note_processes() as started:
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        process.start()
    engine = Engine()
    end_with(engine, started, print)
    print(process.pid, flush=True)
    signal.pause()
"""


def test_no_process_outlives_a_worker_that_is_killed(tmp_path):
    (tmp_path / "worker.py").write_text(_WORKER)
    worker = subprocess.Popen(
        [sys.executable, tmp_path / "worker.py"], stdout=subprocess.PIPE, text=True
    )
    started = psutil.Process(int(worker.stdout.readline()))
    worker.kill()
    worker.wait()
    until = time.monotonic() + 20
    while started.is_running() and started.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "it goes on"
        time.sleep(0.05)


class Engine:
    pass


def test_processes_end_with_their_engine_and_that_is_told():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    with note_processes() as started:
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        process.start()
    assert started == [process]
    engine, told = Engine(), queue.SimpleQueue()
    end_with(engine, started, lambda: told.put("stop"))
    tell_end(started, told.put)
    assert told.empty()
    del engine
    gc.collect()
    assert not process.is_alive()
    assert told.get(timeout=10) == "stop"
    assert isinstance(told.get(timeout=10), ChildProcessError)
    assert other.is_alive()
    other.kill()
