"""What tells a process from a later one with the same number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from pipemill.actors.faults import process_identity as identity
from pipemill.actors.faults.attempt_files import AttemptFiles
from pipemill.actors.storage.store import Store
from pipemill.jobs.output.lease_owner import LeaseOwner, identify_owner

ABSENT = 2**22 + 1  # above the largest number that Linux gives


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def kernel_start(pid: int) -> str:
    """As versions before psutil read it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts ticks")
def test_the_start_is_what_older_versions_wrote(sleeper):
    for pid in (os.getpid(), os.getppid(), sleeper.pid):
        assert identity.process_start(pid) == kernel_start(pid)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert identity.process_identity(pid) == f"{boot}/{pid}/{kernel_start(pid)}"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts ticks")
def test_a_change_of_the_clock_changes_no_start(monkeypatch):
    before = identity.process_start(os.getpid())
    linux = sys.modules["psutil._pslinux"]
    later = linux.boot_time() + 3600
    monkeypatch.setattr(linux, "boot_time", lambda: later)
    if hasattr(linux, "BOOT_TIME"):
        monkeypatch.setattr(linux, "BOOT_TIME", later)
    monkeypatch.setattr(psutil, "boot_time", lambda: later)
    assert identity.process_start(os.getpid()) == before


def test_a_process_that_is_gone_or_a_zombie_has_no_start(sleeper):
    assert identity.process_start(ABSENT) is None
    assert identity.process_identity(ABSENT) is None
    assert identity.process_start(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # and it stays a zombie
    assert identity.process_start(sleeper.pid) is None
    sleeper.wait()
    assert identity.process_start(sleeper.pid) is None


def test_a_hidden_process_is_there_but_has_no_identity(monkeypatch):
    def hidden(pid):
        raise psutil.NoSuchProcess(pid)

    def forbidden(pid, number):
        raise PermissionError

    monkeypatch.setattr(psutil, "Process", hidden)
    assert identity.process_start(os.getpid()) is None
    monkeypatch.setattr(os, "kill", forbidden)
    assert identity.process_start(os.getpid()) == ""
    assert identity.process_identity(os.getpid()) is None
    assert identify_owner("run").is_alive()


def test_a_lease_of_an_older_version_is_understood(sleeper):
    fields = {**json.loads(identify_owner("run").to_bytes()), "pid": sleeper.pid}
    lease = {**fields, "born": kernel_start(sleeper.pid)}
    assert LeaseOwner.from_bytes(json.dumps(lease).encode()).is_alive() is True
    assert LeaseOwner.from_bytes(json.dumps({**lease, "born": ""}).encode()).is_alive() is True
    assert LeaseOwner.from_bytes(json.dumps({**lease, "born": "1"}).encode()).is_alive() is False
    assert LeaseOwner.from_bytes(json.dumps({**lease, "pid": ABSENT}).encode()).is_alive() is False
    other = {**lease, "machine": "another"}
    assert LeaseOwner.from_bytes(json.dumps(other).encode()).is_alive() is None


def test_an_attempt_of_an_older_version_is_understood(sleeper, tmp_path):
    files = AttemptFiles(Store(str(tmp_path)), "run")
    name = files.begin("part")
    (path,) = (tmp_path / "_pipemill/attempts").iterdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for process, gone in (
        (f"{boot}/{sleeper.pid}/{kernel_start(sleeper.pid)}", []),
        (f"{boot}/{sleeper.pid}/1", [name]),
        (None, [name]),
    ):
        path.write_text(json.dumps({"process": process, "pid": sleeper.pid, "host": "here"}))
        assert files.dead_attempts([name]) == gone
