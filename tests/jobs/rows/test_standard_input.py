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


def words_of(folder, *more, verb="run", output="out"):
    words = [verb, "--task", "lengths", "--model", str(folder / "model"), "--input", "-"]
    words += ["--set", "actors.placement=local", "--set", "output.rows_per_part=10"]
    return [*words, "--output", str(folder / output), *more]


@pytest.fixture
def feed(tmp_path, monkeypatch, capsys):
    """Run a command in this process: a new one for each would take most of the time."""
    light.install(monkeypatch)
    light.job(tmp_path, ["unused"])

    def run(data, *more, **words):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        return main(words_of(tmp_path, *more, **words)), *capsys.readouterr()

    return run


def pipe(stdin, folder, *more):
    light.job(folder, ["unused"])
    return subprocess.run(
        [sys.executable, "-m", "tests.support.light", *words_of(folder, *more)],
        env={**os.environ, "PYTHONPATH": str(Path(pipemill.__file__).parent.parent)},
        capture_output=True,
        stdin=stdin,
    )


def read_report(ended):
    return json.loads(ended[1].splitlines()[-1])


def test_it_is_stored_once_and_goes_on_without_it(feed, tmp_path):
    assert read_report(feed(JSONL))["rows"] == 25
    assert read_table(tmp_path / "out")["n"].to_pylist() == list(range(25))
    min((tmp_path / "out").glob("part-*")).unlink()
    # Nothing is piped, then the same again.
    for data, added in ((b"", 10), (JSONL, 0)):
        report = read_report(feed(data))
        assert (report["rows"], report["added"]["rows"]) == (25, added)
        assert report["notes"] == [
            "the rows are those that this output stored of standard input before"
        ]
    status, _, message = feed(JSONL + JSONL)
    assert status == 2
    assert "this output holds the rows of another standard input: name another" in message
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


def test_what_can_not_be_read_is_said(feed, tmp_path):
    for data, message in (
        (b"", "there is nothing on standard input: pipe a file to the command"),
        (b"some text\n", "can't tell the format of standard input, which is not JSON Lines: name"),
    ):
        status, _, said = feed(data)
        assert status == 2
        assert message in said
    status, out, said = feed(JSONL, "--input", "more.jsonl")
    assert (status, out) == (2, "")
    assert "--input - is standard input, which can't be one of several inputs" in said
    master, terminal = os.openpty()
    done = pipe(terminal, tmp_path)
    os.close(master)
    assert "there is nothing on standard input" in done.stderr.decode()


def test_a_limit_reads_the_lines_that_it_needs(feed, tmp_path):
    """The program that writes them is told to end, as by `head`; another limit needs more."""
    endless = subprocess.Popen(["yes", '\n{"text": "again"}'], stdout=subprocess.PIPE)
    done = pipe(endless.stdout, tmp_path, "--set", "input.limit=7")
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == 7
    endless.stdout.close()
    assert endless.wait(timeout=60) != 0
    (stored,) = (tmp_path / "out/_pipemill").rglob("000000.jsonl")
    assert stored.read_bytes() == b'\n{"text": "again"}\n' * 7
    same, other = (b'\n{"text": "%s"}\n' % word * 9 for word in (b"again", b"other"))
    for data, status in ((b"", 0), (same, 0), (other, 2)):
        assert feed(data, "--set", "input.limit=7")[0] == status
    pretty = json.dumps([{"text": "a"}, {"text": "b"}], indent=1).encode()
    for format, data in (("jsonl", pretty), ("csv", b'text\n"a\nb"\nc\n'), ("text", b"a\nb")):
        more = ["--set", f"input.format={format}", "--set", "input.limit=2"]
        assert read_report(feed(data, *more, output=format))["rows"] == 2


def test_dead_letters_are_tried_again_without_it(feed, tmp_path):
    data = b'{"text": "bad3"}\n{"text": "b"}\n'
    assert feed(data, "--set", "output.max_errors=null")[0] == 0
    status, _, message = feed(b"", "--param", "healed=3", verb="retry")
    assert status == 0, message
    assert sorted(read_table(tmp_path / "out")["text"].to_pylist()) == ["b", "bad3"]


def test_a_preview_reads_the_first_lines(models, monkeypatch, capsys):
    words = ["preview", "--task", "text-classification", "--model", models["text-classification"]]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(JSONL)))
    assert main([*words, "--input", "-", "-n", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2
