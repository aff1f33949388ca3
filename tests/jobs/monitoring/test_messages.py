"""What a run says on stderr, if it shall say it to a program, or nothing."""

from __future__ import annotations

import json
import sys

import pytest
from pipemill.jobs.cli.app import main
from pipemill.jobs.monitoring import run_log, run_monitor
from pipemill.jobs.monitoring.run_log import RunState

import pipemill
from tests.support import light

TEXTS = [f"text {i}" if i % 7 else "bad1" for i in range(45)]


@pytest.fixture
def config(tmp_path, monkeypatch):
    light.install(monkeypatch)
    file = tmp_path / "job.json"
    file.write_text(json.dumps(light.job(tmp_path, TEXTS)))
    return str(file)


class Lines:
    """What some programs put in the place of stderr."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("stderr", [None, Lines()])
def test_a_program_needs_no_stderr(tmp_path, monkeypatch, stderr):
    light.install(monkeypatch)
    monkeypatch.setattr(sys, "stderr", stderr)
    assert pipemill.run(light.job(tmp_path, TEXTS)).rows == 45
    assert stderr is None or "lengths: loading the model\n" in stderr.text


def test_lines_of_json_end_with_the_counts_of_the_run(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_monitor, "_LINES_S", 0.0)
    monkeypatch.setattr(run_log, "_LEAST_S", 0.1)
    monkeypatch.setattr(run_monitor, "_BEAT_S", 0.2)
    monkeypatch.setenv("LIGHT_SLOW", "0.01")
    assert main(["run", config, "--log-format", "json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == 45
    events = [json.loads(line) for line in err.splitlines()]
    texts = [event["text"] for event in events if event["event"] == "message"]
    assert "lengths: loading the model" in texts
    states = [event for event in events if event["event"] != "message"]
    assert [state["event"] for state in states[:2]] == ["start", "progress"]
    last = states[-1]
    assert (last["event"], last["rows"], last["dead"], last["rows_total"]) == ("end", 45, 7, 45)
    assert last["reasons"] == {"regroup: ValueError": 7}
    # The output has the same lines.
    (log,) = (tmp_path / "out/_pipemill/log").iterdir()
    lines = log.read_text().splitlines()
    assert json.loads(lines[-1]) == last
    assert RunState.from_json(lines[0]).event == "start"
    assert RunState.from_json(lines[-1][:-1] + ', "newer": 1}').rows == 45
    assert [json.loads(line) for line in lines] == states


def test_an_error_is_a_line_of_json_and_the_log_has_it(config, tmp_path, capsys):
    flags = ["--set", "output.on_error=raise", "--set", "output.max_errors=0"]
    assert main(["run", config, *flags, "--log-format", "json"]) == 1
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert events[-1]["event"] == "error"
    assert "bad1 is not healed" in events[-1]["text"]
    (log,) = (tmp_path / "out/_pipemill/log").iterdir()
    end = RunState.from_json(log.read_text().splitlines()[-1])
    assert (end.event, end.splits_failed) == ("end", 1)
    assert "bad1 is not healed" in str(end.text)


def test_quiet_says_only_errors(config, tmp_path, capsys):
    assert main(["run", config, "-q"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["dead"], err) == (7, "")
    assert main(["retry", config, "--quiet", "--set", "parameters.healed=x"]) == 2
    assert capsys.readouterr().err.startswith("pipemill: ")
    assert main(["retry", config, "--quiet", "--param", "healed=3"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["status", str(tmp_path / "out")]) == 0  # and the next one speaks again
    assert "held by" in capsys.readouterr().err


def test_another_format_is_refused(config, capsys):
    assert main(["run", config, "--log-format", "yaml"]) == 2
    assert "must be text or json, not 'yaml'" in capsys.readouterr().err
