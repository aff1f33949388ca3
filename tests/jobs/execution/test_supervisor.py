"""A command ends with a reason, whatever ends its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

START = """
import os, signal, sys, time
from pipemill.jobs.cli.app import _explain_end
from pipemill.jobs.execution.supervisor import *
def ready():
    print(os.getpid(), flush=True)
def work():
"""
END = """
status = supervise(work, _explain_end)
sys.exit(status)
"""


def start(work: str) -> subprocess.Popen[str]:
    """A command that does this work; `ready` prints its process id."""
    lines = "".join(f"    {line}\n" for line in work.splitlines())
    return subprocess.Popen(
        [sys.executable, "-c", START + lines + END],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=60)
    return process.returncode, said.strip()


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        ("report_status(0)\nreturn 0", 0, ""),
        ("report_status(2)\nreturn 2", 2, ""),
        # Ray's shutdown, after everything is written.
        ("report_status(0)\nos._exit(1)", 0, ""),
        ("report_status(1)\nos.kill(os.getpid(), signal.SIGKILL)", 1, ""),
        # One that hangs in C, where Python handles no signal.
        (
            "import pipemill.jobs.execution.supervisor as s, ctypes\ns._END_S = 1\n"
            "report_status(1)\nctypes.PyDLL(None).sleep(90)",
            1,
            "",
        ),
        ("report_json()\nos._exit(1)", 1, '"text": "the process ended with status 1 without a'),
        ("os._exit(1)", 1, "pipemill: the process ended with status 1 without a reason; run again"),
        ("report_ray()\nos._exit(1)", 1, "pipemill: Ray ended the process: its raylet or the head"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 1, "signal 9, SIGKILL (out of memory?); run"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 1, "killed by signal 11, SIGSEGV; run again"),
    ],
)
def test_every_end_has_a_status_and_a_reason(work, status, said):
    got, stderr = end(start(work))
    assert got == status
    assert said in stderr
    assert stderr.count("\n") == 0
    assert bool(said) == bool(stderr)


CAUGHT = """
try:
    ready()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    print("once", file=sys.stderr)
    report_status(130)
    return 130
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to", ["parent", "child", "both"])
def test_an_interrupt_arrives_once(number, to):
    process = start(CAUGHT)
    child = int(process.stdout.readline())
    for pid in {"parent": [process.pid], "child": [child], "both": [child, process.pid]}[to]:
        os.kill(pid, number)
    assert end(process) == (130, "once")


def test_a_delayed_interrupt_arrives_once():
    delayed = CAUGHT.replace("    time.sleep(60)", "    with delay_interrupts(): time.sleep(1)")
    process = start(delayed)
    child = int(process.stdout.readline())
    os.kill(child, signal.SIGINT)
    time.sleep(1.5)  # it was raised
    os.kill(process.pid, signal.SIGINT)  # and is forwarded
    assert end(process) == (130, "once")


def test_the_third_interrupt_ends_what_does_not_end_by_itself():
    process = start("ready()\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass")
    process.stdout.readline()
    for _ in range(3):
        time.sleep(0.7)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    assert end(process) == (130, "pipemill: interrupted; run again to resume")


def test_nohup_is_obeyed():
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as it does, for what it starts
    try:
        process = start("ready()\ntime.sleep(1)\nreport_status(0)\nreturn 0")
        for pid in (int(process.stdout.readline()), process.pid):
            os.kill(pid, signal.SIGHUP)
        assert end(process) == (0, "")
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_a_lost_interrupt_is_found_again():
    work = """
try:
    ready()
    time.sleep(60)
except KeyboardInterrupt:
    pass  # as in a destructor
try:
    check_interrupts()
except KeyboardInterrupt:
    report_status(130)
    return 130
return 0
"""
    process = start(work)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, "")


def test_it_does_not_outlive_its_parent():
    process = start("ready()\ntime.sleep(60)")
    child = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.communicate()
    assert child.wait(timeout=10) is None or not child.is_running()


CLI = """
import os, sys
from pipemill.jobs.cli import app
from pipemill.errors import ConfigError, RunError
def run():
    from pipemill.jobs.execution import ray_cluster
    ray_cluster._shut_down = lambda: os._exit(1)
    {way}
app.parse_verb = lambda arguments: run
sys.exit(app.command(["run", "job.yaml"]))
"""


@pytest.mark.parametrize(
    ("way", "status", "stdout", "stderr"),
    [
        ("print('{}'); return 0", 0, "{}\n", ""),
        ("raise RunError('5 rows failed')", 1, "", "pipemill: 5 rows failed\n"),
        ("raise ConfigError('no such key')", 2, "", "pipemill: no such key\n"),
        ("raise KeyboardInterrupt", 130, "", "pipemill: interrupted; run again to resume\n"),
    ],
)
def test_everything_is_written_before_ray_shuts_down(way, status, stdout, stderr):
    """Which may end the process, without flushing what it holds."""
    code = CLI.replace("{way}", way)
    buffered = {name: v for name, v in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=buffered, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, stdout, stderr)


def test_an_interrupt_while_python_imports_is_one_line(tmp_path):
    """At any moment: the first second is imports."""
    for wait in (0.15, 0.3, 0.45):
        process = subprocess.Popen(
            [sys.executable, "-m", "pipemill.jobs.run", str(tmp_path / "none.yaml")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        started = psutil.Process(process.pid)
        while not started.children() and process.poll() is None:
            time.sleep(0.005)  # Python itself starts
        time.sleep(wait)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        status, said = end(process)
        assert (status, said) == (130, "pipemill: interrupted; run again to resume") or status == 2
        assert "Traceback" not in said
