"""The command line from the outside: wrong words, help, terminals, completion, interrupts."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli import app
from pipemill.jobs.cli.app import main
from pipemill.jobs.cli.job_options import JobOptions
from pipemill.jobs.config import load

import pipemill
from tests.support import light

ROOT = Path(__file__).parents[3]
VERBS = ["run", "retry", "status", "report", "verify", "tune", "plan", "preview", "tasks"]
COMMAND = [sys.executable, "-m", "pipemill"]


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with pipes, as a script does."""
    return subprocess.run(
        [*COMMAND, *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def on_terminal(*words: str, start: Sequence[str] = COMMAND, **variables: str) -> tuple[int, str]:
    """Run the command on a terminal; return its status and what the terminal got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*start, *words],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **variables},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    got = b""
    with suppress(OSError):  # how Linux says that nobody writes any more
        while piece := os.read(ours, 4096):
            got += piece
    os.close(ours)
    return process.wait(), got.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    """Return the text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize(
    ("words", "message", "see"),
    [
        ([], "a verb is missing: run, retry, submit, status,", ""),
        (["rnu"], "unknown verb 'rnu'; did you mean run?", ""),
        (["summarize"], "unknown verb 'summarize'", ""),
        (["--versoin"], "unknown option --versoin; did you mean --version?", ""),
        (["run", "--modle", "x"], "unknown option --modle; did you mean --model?", "run "),
        (["run", "--modle=x"], "unknown option --modle; did you mean --model?", "run "),
        (["run", "-model", "x"], "unknown option -model; did you mean --model?", "run "),
        (["run", "--wholly-else"], "unknown option --wholly-else", "run "),
        (["run", "--num-gpus=1"], "unknown option --num-gpus; did you mean --set actors.n", "run "),
        (["run", "--format=csv"], "unknown option --format; did you mean --set input.", "run "),
        (["run", "--resume"], "unknown option --resume; the same job again finishes", "run "),
        (["status", "--num-gpus"], "unknown option --num-gpus", "status "),
        (["run", "--model"], "--model needs a value", "run "),
        (["plan", "--model", "--task"], "--model needs a value, and --task follows it", "plan "),
        (["run", "a.yaml", "b.yaml"], "got unexpected extra argument", "run "),
        (["status"], "OUTPUT is missing. The folder or URL", "status "),
        (["verify", "o", "--sample", "-1"], "--sample must be a whole number of at ", "verify "),
        (["run", "--on-changed", "a"], "--on-changed must be error or reprocess, not 'a'", "run "),
        (["submit", "--code", "there"], "--code must be here or cluster, not 'there'", "submit "),
        (["preview", "-n", "0"], "--rows must be a whole number of at least 1, not", "preview "),
        (["tune", "--seconds", "nan"], "--seconds must be a number of seconds above 0", "tune "),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_status_2_and_two_lines(capsys, words, message, see):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith(f"pipemill: {message}")
    assert second == f"See pipemill {see}--help"


@pytest.mark.parametrize(
    "task", [["--task", "text-classification"], ["--task=text-classification"]]
)
def test_an_option_may_be_meant_as_a_parameter_of_the_task(capsys, task):
    assert main(["plan", *task, "--top-k", "3"]) == 2
    assert "unknown option --top-k; did you mean --param top_k=…?\n" in capsys.readouterr().err


def test_a_wrong_command_line_is_the_same_on_a_terminal():
    status, text = on_terminal("run", "--modle", "x")
    assert status == 2
    assert (
        text == "pipemill: unknown option --modle; did you mean --model?\nSee pipemill run --help\n"
    )


def test_what_is_no_mistake_of_an_option_is_said_by_the_config(capsys):
    assert main(["run", "--column", "text"]) == 2
    assert capsys.readouterr().err == "pipemill: --column 'text' is not of the form NAME=COLUMN\n"
    assert main(["run", "no-such.yaml"]) == 2
    assert "can't read the config no-such.yaml" in capsys.readouterr().err


def test_a_config_in_place_of_an_output_and_the_other_way_round(tmp_path, capsys):
    config = tmp_path / "job.yaml"
    config.write_text("task: text-classification")
    for verb, name, said in (
        ("retry", tmp_path, "it is a folder; name the YAML file of the job, not its output"),
        ("status", config, "it is a file; name the folder that the run wrote to (output.path)"),
    ):
        assert main([verb, str(name)]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_in_a_pipe_is_plain_text_in_groups(flag):
    done = command(flag, FORCE_COLOR="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(re.search(rf"^  {verb} +[A-Z]", done.stdout, re.MULTILINE) for verb in VERBS)
    assert not set(done.stdout) & {"\x1b", "╭", "│"}
    done = command("run", flag)
    groups = re.findall(r"^(\w+):$", done.stdout, re.MULTILINE)
    assert groups == ["Arguments", "Job", "Input", "Output", "Options"]


def test_help_on_a_terminal_is_boxes_and_colours_unless_forbidden():
    _, text = on_terminal("run", "--help")
    assert "─ Input ─" in plain(text)
    assert "\x1b[" in text
    _, text = on_terminal("run", "--help", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", text), "no colour"
    _, text = on_terminal("run", "--help", TERM="dumb")
    assert not set(text) & {"\x1b", "╭"}


@pytest.mark.parametrize("start", [["-m", "pipemill"], ["-m", "pipemill.jobs.cli.app"]])
def test_the_version(start):
    done = subprocess.run(
        [sys.executable, *start, "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"pipemill {pipemill.__version__}\n"


@pytest.mark.parametrize("verb", [*VERBS, "submit", "push", "dashboard"])
def test_the_module_of_a_verb_is_the_verb(verb):
    done = subprocess.run(
        [sys.executable, "-m", f"pipemill.jobs.{verb}", "--help"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith(f"Usage: pipemill {verb} ")


def test_a_shell_completes_verbs_options_and_tasks():
    def complete(words: str) -> list[str]:
        count = len(words.split(" ")) - 1
        environment = {"COMP_WORDS": words, "COMP_CWORD": str(count)}
        return command(_PIPEMILL_COMPLETE="complete_bash", **environment).stdout.split()

    assert complete("pipemill re") == ["retry", "report"]
    assert complete("pipemill run --ou") == ["--output"]
    assert complete("pipemill run --task summ") == ["summarization"]
    assert complete("pipemill tasks vq") == ["vqa"]
    assert "complete -o" in command(_PIPEMILL_COMPLETE="source_bash").stdout


def test_options_become_the_job_that_they_name(monkeypatch, capsys):
    # These keep the real function.
    import pipemill.jobs.plan
    import pipemill.jobs.preview
    import pipemill.jobs.run

    seen = []

    def build_job(config, settings, columns, sections, needs_output):
        seen.append((config, settings, columns, sections, needs_output))
        raise pipemill.ConfigError("enough")

    monkeypatch.setattr(load, "build_job", build_job)
    words = ["--task", "ner", "--model=m", "--input", "a", "--column", "text=no", "--column", "x="]
    words += ["--param", "top_k=3", "--set", "output.rows_per_part=3", "--set", "a.b=c"]
    assert main(["run", *words, "job.yaml", "--input", "b", "--output", "o"]) == 2
    sections = {"task": "ner", "model": "m", "input": {"path": ["a", "b"]}, "output": "o"}
    sections["parameters"] = {"top_k": 3}
    settings = ["output.rows_per_part=3", "a.b=c"]
    assert seen.pop() == ("job.yaml", settings, {"text": "no", "x": None}, sections, True)
    assert main(["preview", "--input", "a"]) == 2
    assert seen.pop() == (None, [], {}, {"input": {"path": "a"}}, False)
    assert main(["plan", "job.yaml", "--rows", "3", "--seconds", "0.5"]) == 2
    assert seen.pop() == ("job.yaml", [], {}, {}, False)
    assert JobOptions() == JobOptions(config=None)


@pytest.mark.parametrize(
    ("end", "status", "err"),
    [
        (KeyboardInterrupt(), 130, "pipemill: interrupted; run again to resume\n"),
        (pipemill.RunInterrupted("stopped"), 130, "pipemill: stopped\n"),
        (pipemill.RunError("5 rows failed"), 1, "pipemill: 5 rows failed\n"),
        (pipemill.ModelError("no weights"), 2, "pipemill: no weights\n"),
        (SystemExit(3), 3, ""),
    ],
)
def test_typer_leaves_the_ends_of_a_verb_alone(monkeypatch, capfd, end, status, err):
    def fail(*_, **__):
        raise end

    monkeypatch.setattr(JobOptions, "build", fail)
    place = sys.stdout.fileno()  # a file of pytest's, which the command may close
    stdout = os.dup(place)
    try:
        assert main(["run", "job.yaml"]) == status
    finally:
        os.dup2(stdout, place)
        os.close(stdout)
    assert capfd.readouterr().err == err


def test_a_broken_pipe_that_is_not_stdout_is_no_success(monkeypatch, capfd):
    def fail(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(JobOptions, "build", fail)
    assert main(["run", "job.yaml"]) == 1
    assert capfd.readouterr().err.endswith("BrokenPipeError\n")


def test_a_fault_is_a_traceback_and_status_1(monkeypatch, capsys):
    monkeypatch.setattr(JobOptions, "build", lambda self: 1 / 0)
    assert main(["run", "job.yaml"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_lead_nowhere(tmp_path, closed):
    file = tmp_path / "job.json"
    file.write_text(json.dumps(light.job(tmp_path, ["a b", "c"])))
    run = f"{sys.executable} -m tests.support.light run {file} {closed}"
    done = subprocess.run(run, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert pipemill.verify(tmp_path / "out").ok


def test_where_processes_are_not_forked_no_lock_is_left_behind(tmp_path):
    """As Python 3.14 starts processes; tqdm's own lock is one of all processes."""
    file = tmp_path / "job.json"
    file.write_text(json.dumps(light.job(tmp_path, ["a b", "c"])))
    code = (
        "import multiprocessing, sys; multiprocessing.set_start_method('forkserver')\n"
        "from tests.support import light; light.install()\n"
        f"from pipemill.jobs.cli.app import command; sys.exit(command(['run', {str(file)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "resource_tracker" in done.stderr) == (0, False), done.stderr


def test_a_reader_that_has_seen_enough_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m pipemill tasks | head -1", shell=True, cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("task ")
    assert done.stderr == ""


@pytest.mark.parametrize("full", [False, True])
def test_a_run_goes_on_when_its_messages_cannot_be_written(tmp_path, full):
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(light.job(tmp_path, [f"row {n}" for n in range(30)])))
    if full:
        messages = os.open("/dev/full", os.O_WRONLY)
    else:  # their reader has gone
        reader, messages = os.pipe()
        os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.light", "run", str(config)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=messages, text=True,
    )  # fmt: skip
    os.close(messages)
    assert done.returncode == 0
    assert json.loads(done.stdout)["done"] == 30
    assert len(list((tmp_path / "out").glob("part-*"))) == 3


def test_an_interrupt_while_typer_parses_waits_for_its_end(monkeypatch, capsys):
    from pipemill.jobs.cli import parser
    from pipemill.jobs.execution import supervisor

    def parse(*_):
        signal.raise_signal(signal.SIGINT)  # to this thread: another one would take its time
        parsed.append(True)
        return lambda: 0

    parsed: list[bool] = []
    monkeypatch.setattr(parser, "parse", parse)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        assert app.main(["status", "out"]) == 130
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        supervisor._arrived.clear()
    assert parsed == [True]
    assert capsys.readouterr().err == "pipemill: interrupted\n"


@pytest.fixture
def out(tmp_path, monkeypatch):
    """An output with a dead letter whose message looks like markup."""
    light.install(monkeypatch)
    pipemill.run(light.job(tmp_path, ["text", "bad1", "[red]text[/]"], rows_per_part=2))
    return tmp_path / "out"


def test_a_check_that_fails_is_no_success_where_nobody_reads_its_result(out):
    next(out.glob("part-*")).unlink()
    reader, pipe = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "pipemill", "verify", str(out)],
        cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(pipe)
    assert done.returncode == 1
    assert "is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_last_line_is_json_in_a_pipe_and_on_a_terminal(out):
    done = command("status", str(out), "--splits")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    status, text = on_terminal("status", str(out), "--splits")
    assert status == 0
    assert text.splitlines()[-1] == line
    assert json.loads(line)["dead"] == 1
    assert "dead letters  1 × regroup: ValueError: bad1 is not healed" in done.stderr
    assert "\x1b" not in done.stderr
    shown = " ".join(plain(text).split())
    assert "dead letters 1 × regroup: ValueError: bad1 is not healed" in shown
    assert "\x1b[1m" in text
    for row in ("0 1 0", "1 2 1"):
        assert row in shown
        assert row in " ".join(done.stderr.split())


def test_markup_in_rows_is_shown_as_it_is(tmp_path):
    from pipemill.jobs.preview import Preview

    table = pa.table({"text": ["[red]a[/red] :smile:", "[/]"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    code = (
        "import sys, pyarrow.parquet as pq\n"
        "from pipemill.jobs.cli.console import print_blocks\n"
        "from pipemill.jobs.preview import Preview\n"
        f"print_blocks(Preview(pq.read_table({str(tmp_path / 'rows.parquet')!r}), {{}}).blocks(), "
        "sys.stdout)"
    )
    _, text = on_terminal(code, start=[sys.executable, "-c"])
    assert "[red]a[/red] :smile:" in plain(text)
    assert "[/]" in plain(text)
    assert str(Preview(table, {})) == (
        "row 0\n  text        [red]a[/red] :smile:\nrow 1\n  text        [/]"
    )


def test_names_beyond_ascii_under_a_locale_without_them(tmp_path):
    (tmp_path / "ü日").mkdir()
    config = tmp_path / "ü日/jöb.yaml"
    config.write_text("task: text-classification\nmodel: /no/módel\ninput: i\noutput: o\n")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = command("run", str(config), **locale)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no model at /no/módel" in done.stderr
