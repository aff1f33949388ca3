"""A run is followed from its output, here and from another machine."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from pipemill.jobs.cli.app import main
from pipemill.jobs.monitoring import watch_run
from pipemill.jobs.monitoring.run_log import RunState
from pipemill.jobs.output.lease_owner import LeaseOwner, identify_owner, now

import pipemill
from tests.support import light

TEXTS = [f"text {i}" if i % 7 else "bad1" for i in range(90)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that takes about ten seconds, as its own process."""
    monkeypatch.setattr(watch_run, "_LINES_S", 0.2)
    process = light.start("run", light.job(tmp_path, TEXTS, 5), tmp_path, slow=0.04)
    while not (tmp_path / "out/_pipemill/job.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


def slow_down(views):
    for view in views:
        yield view
        time.sleep(0.05)


def test_it_is_watched_to_its_end(run, tmp_path, capsys):
    assert main(["status", str(tmp_path / "out"), "--watch"]) == 0
    assert run.wait(20) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["done"], json.loads(out)["left"]) == (77, 0)
    lines = [line for line in err.splitlines() if " of 90 rows" in line]
    rows = [int(line.split()[0]) for line in lines]
    assert rows == sorted(rows)
    assert 0 < rows[-1] <= 90
    full = next(line for line in lines if "binds" in line)
    assert re.search(r"\(\d+%\), \d+ dead, [\d.]+ rows/s, \d+ s left, ", full)
    assert re.search(r", [01] at work on (0 splits|1 split), binds: postprocess \d+%", full)
    assert "rows          90 (77 done, 13 dead)" in err  # what status shows then


def test_on_a_terminal_it_is_one_table_that_goes(run, tmp_path, monkeypatch):
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    shown: list[bytes] = []
    reader = threading.Thread(target=read_terminal, args=[ours, shown])
    reader.start()
    with open(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        watch_run.watch_run(str(tmp_path / "out"))
    reader.join(10)
    text = b"".join(shown).decode()
    assert run.wait(20) == 0
    done = [int(rows) for rows in re.findall(r"(\d+) of 90 rows", text)]
    assert done == sorted(done)
    assert len(set(done)) > 1
    up_and_clear = "\x1b[1A\x1b[2K"
    assert text.count("\n") == text.count(up_and_clear), "each line goes again"
    assert text.endswith(up_and_clear)


def read_terminal(file, shown):
    with suppress(OSError):  # how Linux says that nobody writes any more
        while piece := os.read(file, 4096):
            shown.append(piece)
    os.close(file)


def test_from_another_machine_a_killed_run_ends_when_its_lease_no_longer_changes(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(LeaseOwner, "is_alive", lambda self: None)
    monkeypatch.setattr(watch_run, "EXPIRY_S", 4.0)
    watcher = watch_run.RunWatcher(str(tmp_path / "out"))
    views = slow_down(watcher.views())
    view = next(view for view in views if view.state and view.state.rows)
    assert view.owner.pid == run.pid
    table = str(view.table())
    assert "run           `pipemill run` of" in table
    assert re.search(r"^dead letters  \d × regroup: ValueError$", table, re.MULTILINE)
    run.kill()
    killed = time.monotonic()
    assert all(view.owner.pid == run.pid for view in views)
    assert time.monotonic() - killed > 0.5  # its last beat was up to three seconds old
    monkeypatch.setattr(watch_run, "EXPIRY_S", 0.5)
    assert main(["status", str(tmp_path / "out"), "--watch"]) == 1
    assert json.loads(capsys.readouterr().out)["left"] > 0


def test_nothing_to_watch_is_the_status(tmp_path, monkeypatch, capsys):
    light.install(monkeypatch)
    pipemill.run(light.job(tmp_path, TEXTS))
    out = str(tmp_path / "out")
    assert main(["status", out, "--watch"]) == 0
    shutil.rmtree(Path(out, "_pipemill/log"))  # of a version without logs
    assert main(["status", out, "--watch"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 90
    assert main(["status", os.fspath(tmp_path), "--watch"]) == 2
    assert "is not an output of pipemill" in capsys.readouterr().err


def test_before_a_split_is_read_no_number_of_rows_is_said():
    state = RunState(
        event="start", time=now(), seconds=0.0, verb="run", task="fill-mask", placement="fused"
    )
    owner = identify_owner("run")
    view = watch_run.RunView(
        owner=owner, state=state, about="about ", actors=0, splits=0, loading=1
    )
    assert view.line().startswith("0 rows, 0 dead, 0 at work")
