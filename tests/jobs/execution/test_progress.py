"""What a run says meanwhile."""

from __future__ import annotations

import sys
import time

import pytest
from pipemill.actors.faults.attempt_files import AttemptFiles
from pipemill.actors.storage.store import Store
from pipemill.jobs.execution import startup as stages
from pipemill.jobs.execution.progress import Progress, waiting
from pipemill.jobs.execution.startup import StartupStage


def last(said: str) -> str:
    return said.replace("\r", "\n").strip().splitlines()[-1]


def test_the_bar_starts_where_the_output_stands(capsys):
    with Progress("ner", 100, {"rows": 300, "dead": 7}) as progress:
        progress.add(50, 1, 100)
        assert (progress.bar.n, progress.bar.initial, progress.bar.total) == (350, 350, 400)
        progress.add(50, 0, 100)
    said = last(capsys.readouterr().err)
    assert "400/400" in said
    assert "8 dead letters" in said


def test_the_rate_leaves_out_the_wait_and_what_was_done_before(capsys, monkeypatch):
    monkeypatch.setattr("pipemill.jobs.execution.progress._LOOK_S", 0.3)
    waited = iter([("loading the model", False)] * 3)
    with Progress("ner", 200, {"rows": 10**6}, lambda: next(waited, ("computing", True))) as shown:
        time.sleep(1.6)  # three looks while it loads, and about half a second of computing
        shown.add(100, 0, 200)
        rate = shown.bar.format_dict
        seconds = rate["elapsed"]
        assert (rate["n"] - rate["initial"]) == 100
        assert 0.2 < seconds < 1.2
    said = capsys.readouterr().err
    assert said.splitlines()[0] == "ner: loading the model"
    assert said.count("loading the model") == 1
    assert said.count("ner: computing") == 1


def test_nothing_is_shown_of_a_run_without_rows(capsys):
    with Progress("ner", 100):
        pass
    assert capsys.readouterr().err == ""


class Terminal:
    def __init__(self, stream):
        self.stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self.stream, name)


def test_on_a_terminal_a_wait_is_one_line_that_goes(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal(sys.stderr))
    with waiting("starting Ray"):
        time.sleep(1.3)
    said = capsys.readouterr().err
    assert "\n" not in said.strip("\n")
    assert "starting Ray [00:00]" in said
    assert "starting Ray [00:01]" in said
    assert not last(said + "\rend").startswith("starting")


@pytest.mark.parametrize(("measures", "computing"), [
    (True, "measuring on the first rows"), (False, "computing the first rows"),
])  # fmt: skip
def test_the_stage_is_what_workers_have_begun(tmp_path, monkeypatch, measures, computing):
    monkeypatch.setattr(stages, "_LOOK_S", 0.0)
    attempts = AttemptFiles(Store(str(tmp_path)), "thisrun")
    attempts.begin("part-00000000-0123.parquet")  # of a process that died
    stage = StartupStage(attempts, "waits for CPUs (2 of 2 in use)", measures)
    assert stage() == ("waits for CPUs (2 of 2 in use)", False)
    AttemptFiles(Store(str(tmp_path)), "another").begin("loading.another.1")
    assert stage() == ("waits for CPUs (2 of 2 in use)", False)
    loading = attempts.begin("loading.thisrun.1")
    assert stage() == ("loading the model", False)
    attempts.end([loading])
    assert stage() == ("loading the model", False)
    attempts.begin("part-00000001-4567.parquet")
    assert stage() == (computing, True)
