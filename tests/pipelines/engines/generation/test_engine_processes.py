"""Processes of an engine end with the process that started them, and their end is told."""

from __future__ import annotations

import gc
import multiprocessing
import os
import queue
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
from pipemill.pipelines.engines.generation.engine_processes import EngineProcesses, tell_end

_WORKER = """
import multiprocessing, signal, sys, time
from pipemill.pipelines.engines.generation.engine_processes import EngineProcesses

class Engine:
    pass

def compute(numbers):
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    numbers.put(process.pid)
    process.join()

if __name__ == "__main__":
    how, made = sys.argv[1:]
    context = multiprocessing.get_context(how)
    with EngineProcesses() as processes:
        numbers = context.SimpleQueue()
        process = context.Process(target=compute, args=(numbers,))
        process.start()
        while made == "no":
            if processes.started:
                print(process.pid, numbers.get(), flush=True)
                signal.pause()
    engine = Engine()
    processes.end_with(engine, print)
    print(process.pid, numbers.get(), flush=True)
    signal.pause()
"""


def start(how: str = "spawn") -> multiprocessing.Process:
    process = multiprocessing.get_context(how).Process(target=time.sleep, args=(60,))
    process.start()
    return process


@pytest.mark.parametrize("made", ["made", "no"])
@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_no_process_outlives_a_worker_that_is_killed(tmp_path, how, made):
    """Also if it is killed while the engine is made, which loads its weights then."""
    (tmp_path / "worker.py").write_text(_WORKER)
    worker = subprocess.Popen(
        [sys.executable, tmp_path / "worker.py", how, made], stdout=subprocess.PIPE, text=True
    )
    started = [psutil.Process(int(number)) for number in worker.stdout.readline().split()]
    assert len(started) == 2  # the second was started by the first
    worker.kill()
    worker.wait()
    until = time.monotonic() + 20
    while any(map(goes_on, started)):
        assert time.monotonic() < until, f"of {started} some go on"
        time.sleep(0.05)


def goes_on(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def fail_to_make(processes: EngineProcesses, how: str) -> None:
    with processes:
        start(how)
        raise RuntimeError("no memory")


@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_none_is_left_of_an_engine_that_could_not_be_made(how):
    """Also if it fails before the process that kills has read anything."""
    processes, before = EngineProcesses(), time.monotonic()
    with pytest.raises(RuntimeError, match="no memory"):
        fail_to_make(processes, how)
    [process] = processes.started
    assert not process.is_alive()
    assert time.monotonic() < before + 30  # of the 60 seconds that it sleeps


def test_kernels_and_pythons_without_files_of_processes_will_do(monkeypatch):
    """Linux before 5.3, and a Python that was built with headers of that time."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    with EngineProcesses() as processes:
        start()
    engine, [process] = Engine(), processes.started
    processes.end_with(engine, lambda: None)
    del engine
    gc.collect()
    assert not process.is_alive()


class Engine:
    pass


def test_processes_end_with_their_engine_and_that_is_told():
    other = start()
    with EngineProcesses() as processes:
        process = start()
    assert processes.started == [process]
    engine, told = Engine(), queue.SimpleQueue()
    processes.end_with(engine, lambda: told.put("stop"))
    tell_end(processes.started, told.put)
    assert told.empty()
    del engine
    gc.collect()
    assert not process.is_alive()
    assert told.get(timeout=10) == "stop"
    assert isinstance(told.get(timeout=10), ChildProcessError)
    assert other.is_alive()
    other.kill()
