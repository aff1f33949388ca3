"""`… | pipemill run --input -`."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pipemill.jobs.cli.app import main

import pipemill
from tests.support import light

JSONL = b"".join(json.dumps({"text": f"t {n}", "n": n}).encode() + b"\n" for n in range(25))


def read_table(output):
    return pipemill.read(str(output)).to_table()


@pytest.fixture
def pipe(tmp_path):
    light.job(tmp_path, ["unused"])

    def run(data, output="out", *more, verb="run", stdin=None):
        words = [verb, "--task", "lengths", "--model", str(tmp_path / "model"), "--input", "-"]
        words += ["--set", "actors.placement=local", "--set", "output.rows_per_part=10"]
        words += ["--output", str(tmp_path / output), *more]
        return subprocess.run(
            [sys.executable, "-m", "tests.support.light", *words],
            env={**os.environ, "PYTHONPATH": str(Path(pipemill.__file__).parent.parent)},
            capture_output=True,
            **({"input": data} if stdin is None else {"stdin": stdin}),
        )  # fmt: skip

    return run


def test_it_is_stored_once_and_goes_on_without_it(pipe, tmp_path):
    assert json.loads(pipe(JSONL).stdout.splitlines()[-1])["rows"] == 25
    assert read_table(tmp_path / "out")["n"].to_pylist() == list(range(25))
    min((tmp_path / "out").glob("part-*")).unlink()
    # Nothing is piped, then the same again.
    for data, added in ((b"", 10), (JSONL, 0)):
        report = json.loads(pipe(data).stdout.splitlines()[-1])
        assert (report["rows"], report["added"]["rows"]) == (25, added)
        assert report["notes"] == [
            "the rows are those that this output stored of standard input before"
        ]
    changed = pipe(JSONL + JSONL)
    assert changed.returncode == 2
    assert b"this output holds the rows of another standard input: name another" in changed.stderr
    assert read_table(tmp_path / "out").num_rows == 25


@pytest.mark.parametrize(
    ("format", "data", "texts"),
    [
        ("text", b"one\ntwo words\n", ["one", "two words"]),
        ("csv", b'text,n\n"a\nb",1\nc,2\n', ["a\nb", "c"]),
        ("jsonl", gzip.compress(b'{"text": "a"}\n{"text": "b"}\n'), ["a", "b"]),
        ("auto", b'\xef\xbb\xbf\n{"text": "a"}\n', ["a"]),
    ],
)
def test_its_format_is_named_or_json_lines(format, data, texts, tmp_path, monkeypatch):
    light.install(monkeypatch)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    job = {**light.job(tmp_path, ["unused"]), "input": {"path": "-", "format": format}}
    job = tmp_path / "job.json"
    job.write_text(json.dumps(light.job(tmp_path, ["unused"])))
    assert main(["run", str(job), "--input", "-", "--set", f"input.format={format}"]) == 0
    assert read_table(tmp_path / "out")["text"].to_pylist() == texts


def test_it_is_on_the_disk_before_the_output_says_so(tmp_path, monkeypatch):
    light.install(monkeypatch)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n')))
    synced, sync = [], os.fsync

    def note(file):
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        sync(file)

    monkeypatch.setattr(os, "fsync", note)
    job = tmp_path / "job.json"
    job.write_text(json.dumps(light.job(tmp_path, ["unused"])))
    assert main(["run", str(job), "--input", "-"]) == 0
    places = [path.replace(str(tmp_path / "out"), "") for path in synced]
    rows, record = (
        next(i for i, path in enumerate(places) if name in path)
        for name in (".000000.jsonl.", ".job.json.")
    )
    assert rows < record


def test_what_can_not_be_read_is_said(pipe):
    for data, message in (
        (b"", "there is nothing on standard input: pipe a file to the command"),
        (b"some text\n", "can't tell the format of standard input, which is not JSON Lines: name"),
    ):
        done = pipe(data)
        assert done.returncode == 2
        assert message in done.stderr.decode()
    done = pipe(JSONL, "out", "--input", "more.jsonl")
    assert (done.returncode, done.stdout) == (2, b"")
    assert (
        "--input - is standard input, which can't be one of several inputs" in done.stderr.decode()
    )
    master, terminal = os.openpty()
    done = pipe(None, stdin=terminal)
    os.close(master)
    assert "there is nothing on standard input" in done.stderr.decode()


def test_a_limit_reads_the_lines_that_it_needs(pipe, tmp_path):
    """The program that writes them is told to end, as by `head`; another limit needs more."""
    endless = subprocess.Popen(["yes", '\n{"text": "again"}'], stdout=subprocess.PIPE)
    done = pipe(None, "out", "--set", "input.limit=7", stdin=endless.stdout)
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == 7
    endless.stdout.close()
    assert endless.wait(timeout=60) != 0
    (stored,) = (tmp_path / "out/_pipemill").rglob("000000.jsonl")
    assert stored.read_bytes() == b'\n{"text": "again"}\n' * 7
    same, other = (b'\n{"text": "%s"}\n' % word * 9 for word in (b"again", b"other"))
    for data, status in ((b"", 0), (same, 0), (other, 2)):
        assert pipe(data, "out", "--set", "input.limit=7").returncode == status
    pretty = json.dumps([{"text": "a"}, {"text": "b"}], indent=1).encode()
    for format, data in (("jsonl", pretty), ("csv", b'text\n"a\nb"\nc\n'), ("text", b"a\nb")):
        more = ["--set", f"input.format={format}", "--set", "input.limit=2"]
        done = pipe(data, format, *more)
        assert json.loads(done.stdout.splitlines()[-1])["rows"] == 2


def test_dead_letters_are_tried_again_without_it(pipe, tmp_path):
    data = b'{"text": "bad3"}\n{"text": "b"}\n'
    assert pipe(data, "out", "--set", "output.max_errors=null").returncode == 0
    done = pipe(b"", "out", "--param", "healed=3", verb="retry")
    assert done.returncode == 0, done.stderr
    assert sorted(read_table(tmp_path / "out")["text"].to_pylist()) == ["b", "bad3"]


def test_a_preview_reads_the_first_lines(tmp_path, models):
    words = ["preview", "--task", "text-classification", "--model", models["text-classification"]]
    done = subprocess.run(
        [sys.executable, "-m", "pipemill", *words, "--input", "-", "-n", "2"],
        env={**os.environ, "PYTHONPATH": str(Path(pipemill.__file__).parent.parent)},
        input=JSONL, capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["rows"] == 2
