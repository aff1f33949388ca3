"""A machine that has no more of something to give: one line that says of what."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading

import pytest
from pipemill.jobs.cli import app
from pipemill.jobs.cli.machine_limits import advise

from tests.support import light

PROCESSES = "raise the limit of processes and threads"


def test_too_little_memory_for_a_library_is_one_line():
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (80 << 20, 80 << 20))

    command = [sys.executable, "-m", "pipemill", "tasks"]
    ended = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "give the command more memory" in ended.stderr.splitlines()[-1]


def test_no_process_for_the_command_is_one_line(monkeypatch, capsys):
    def refuse():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    assert app.command(["tasks"]) == 1
    assert PROCESSES in capsys.readouterr().err


def test_no_thread_for_a_run_is_one_line_and_the_output_is_released(tmp_path, monkeypatch, capsys):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, ["a", "b"])
    words = [
        "run", "--task", "lengths", "--model", wanted["model"], "--input", wanted["input"],
        "--output", wanted["output"]["path"], "--set", "actors.placement=local",
    ]  # fmt: skip
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "pipemill-lease":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert app.main(words) == 1
    message = capsys.readouterr().err
    assert PROCESSES in message
    assert "Traceback" not in message
    assert app.main(words) == 0


def test_too_little_memory_for_a_library_that_a_library_loads_gets_advice():
    """torch loads some of its own by `ctypes`, whose error has no number."""
    assert "more memory" in str(advise(OSError("libtorch_cpu.so: failed to map segment")))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no such thread"),
        OSError("no library"),
        ImportError("no module"),
        ValueError("1"),
        # A pipe that can take no more for now.
        BlockingIOError(errno.EAGAIN, "write could not complete without blocking"),
    ],
)
def test_another_error_gets_no_advice(error):
    assert advise(error) is None
