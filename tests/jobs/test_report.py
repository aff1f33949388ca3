"""The page about an output: what it tells, and that nothing in it runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from functools import partial
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.actors.storage.store import Store
from pipemill.jobs.cli.app import main
from pipemill.jobs.measuring.answer_statistics import count_lengths, describe_answers
from pipemill.jobs.monitoring.pace_chart import draw_pace
from pipemill.jobs.monitoring.run_history import read_history
from pipemill.jobs.monitoring.run_log import RunLog, RunState, find_slowest

import pipemill
from tests.support import light, tiny

EVIL = "<script>alert('&amp;')</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Which tags and attributes it has, and what a reader sees."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.seen = set(), set(), ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data):
        self.seen += data


@pytest.fixture
def out(tmp_path):
    model = tiny.save(tmp_path / "model", "ForSequenceClassification", [EVIL, "calm"])
    table = pa.table({"text": [*tiny.texts(60, seed=3, longest=12), None]})
    pq.write_table(table, tmp_path / "in.parquet")
    pipemill.run(
        task="text-classification",
        model=str(model),
        input=str(tmp_path / "in.parquet"),
        output={"path": str(tmp_path / "out"), "rows_per_part": 10},
        actors={"placement": "local"},
        parameters={"top_k": 1},
    )
    return tmp_path / "out"


def test_its_commands_go_on_with_the_job(out, capsys):
    assert main(["report", str(out)]) == 0
    seen = Page(out / "_pipemill/report.html").seen
    commands = re.findall(r"pipemill r\w+ (?:\\\n|[^\\\n])+", seen)
    retry, run = (shlex.split(command.replace("\\\n", "")) for command in commands)
    assert retry[:2] == ["pipemill", "retry"]
    assert retry[2:] == run[2:]
    assert "output.rows_per_part=10" in run
    capsys.readouterr()
    for words, tried in ((run, 0), (retry, 1)):
        assert main(words[1:]) == 0
        assert json.loads(capsys.readouterr().out)["added"]["rows"] == tried


def test_its_last_line_names_the_output_with_its_whole_path(out, capsys, monkeypatch):
    monkeypatch.chdir(out.parent)
    assert main(["report", "out"]) == 0
    page = str(out / "_pipemill/report.html")
    assert json.loads(capsys.readouterr().out) == {"output": str(out), "report": page}


def test_rows_from_memory_have_no_command(tmp_path, monkeypatch):
    light.install(monkeypatch)
    job = light.job(tmp_path, ["a", "bad1"])
    pipemill.run({**job, "input": [{"text": "a"}, {"text": "bad1"}]})
    pipemill.report(job["output"]["path"])
    seen = Page(tmp_path / "out/_pipemill/report.html").seen
    assert "pipemill run" not in seen
    assert "bad1 is not healed" in seen
    assert re.search(r"\btext\s*bad1\b", seen), "the row that failed"


def test_the_pace_of_two_runs_is_one_line(tmp_path):
    store = Store(str(tmp_path))
    state = partial(RunState, event="progress", time="", verb="run", task="ner", placement="fused")
    for number, lines in (
        (3, [(0, 0), (2, 20), (4, 20)]),
        (7, [(0, 0), (6, 300)]),
        (8, [(0, 0), (10, 100)]),
    ):
        log = RunLog(store, number)
        for seconds, rows in lines:
            log.add(state(seconds=seconds, rows=rows, splits_done=1, work={"tokens": rows}))
        log.write(at_once=True)
    history = read_history(store)
    assert history.pace == [(2, 10), (4, 0), (10, 50), (20, 10)]
    assert (history.starts, history.seconds) == ([0, 4, 10], 20)
    whole = history.whole()
    assert whole is not None
    assert (whole.rows, whole.work) == (420, {"tokens": 420})
    chart = draw_pace(history.pace[:3], history.starts[:2], 320, "")
    assert chart is not None
    assert chart.points == "0.0,240.0 200.0,240.0 200.0,300.0 400.0,300.0 400.0,0.0 1000.0,0.0"
    assert chart.rates == [(0, "0"), (50, "25"), (100, "50")]
    assert chart.times[-1] == (100, "10 s")
    assert chart.starts == [40]


@pytest.mark.parametrize(
    ("end", "ticks"),
    [
        (0.3, ["0 s", "0.1 s", "0.2 s", "0.3 s"]),
        (9.4, ["0 s", "2 s", "4 s", "6 s", "8 s"]),
        (100, ["0 s", "20 s", "40 s", "60 s", "80 s", "100 s"]),
        (400, ["0 min", "2 min", "4 min", "6 min"]),
        (20_000, ["0 h", "2 h", "4 h"]),
    ],
)
def test_ticks_are_at_round_times_where_they_say_and_rates_have_no_exponent(end, ticks):
    chart = draw_pace([(end / 2, 15_000), (end, 7)], [0], 9, "")
    assert chart is not None
    assert [text for _, text in chart.times] == ticks
    number, unit = ticks[1].split()
    seconds = float(number) * {"s": 1, "min": 60, "h": 3600}[unit]
    assert chart.times[1][0] == pytest.approx(100 * seconds / end)
    assert [text for _, text in chart.rates] == ["0", "10,000", "20,000"]


def test_its_commands_name_folders_of_models_from_anywhere(tmp_path, monkeypatch):
    tiny.save(tmp_path / "m", "ForSequenceClassification")
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"text": ["a b"]}), "in.parquet")
    pipemill.run(
        task="text-classification",
        model="m",
        input="in.parquet",
        output="out",
        actors={"placement": "local"},
    )
    monkeypatch.chdir("/")
    pipemill.report(str(tmp_path / "out"))
    seen = Page(tmp_path / "out/_pipemill/report.html").seen
    assert f"--model {tmp_path}/m " in seen
    assert pipemill.verify(str(tmp_path / "out"), sample=1).ok


def test_outputs_without_logs_are_drawn_from_the_times_of_parts(out):
    shutil.rmtree(out / "_pipemill/log")
    for number, part in enumerate(sorted(out.glob("part-*"))):
        os.utime(part, (10**9, 10**9 + 60 * number))
    pipemill.report(str(out))
    page = Page(out / "_pipemill/report.html")
    assert "51 rows in 6 min" in page.seen or "61 rows in 6 min" in page.seen
    assert "What bound the run" not in page.seen


def test_of_several_tasks_each_has_its_answers_and_the_command_has_all(models, tmp_path, capsys):
    texts = tiny.texts(40, seed=3, longest=12)
    pq.write_table(pa.table({"body": texts, "a_label": ["mine"] * 40}), tmp_path / "in.parquet")
    entry = {"task": "text-classification", "model": models["text-classification"]}
    pipemill.run(
        tasks=[
            {**entry, "name": "a", "columns": {"text": "body"}, "parameters": {"top_k": 1}},
            {**entry, "columns": {"text": "body"}, "where": "a_score > 0.5"},
            {"task": "feature-extraction", "model": models["feature-extraction"], "name": "v"},
        ],
        input={"path": str(tmp_path / "in.parquet"), "columns": {"text": "body"}},
        output={"path": str(tmp_path / "out"), "rows_per_part": 10},
        actors={"placement": "local"},
    )
    assert main(["report", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    seen = Page(tmp_path / "out/_pipemill/report.html").seen
    for title in ("Answers: a", "Answers: text-classification", "Answers: v", "(body)"):
        assert title in seen
    assert "mine" not in seen
    (command,) = re.findall(r"pipemill run (?:\\\n|[^\\\n])+", seen)
    assert main(shlex.split(command.replace("\\\n", ""))[1:]) == 0
    assert json.loads(capsys.readouterr().out)["added"]["rows"] == 0


def test_lengths_are_counted_in_classes_that_double():
    texts = pa.chunked_array([["", "a", "ab", None], ["äöü", "x" * 9]])
    assert count_lengths([texts]) == [(1, 2), (2, 1), (4, 1), (8, 0), (16, 1)]
    assert count_lengths([pa.chunked_array([[None]], pa.string())]) == []


def test_the_slowest_splits_of_all_runs_are_kept(tmp_path):
    splits = [{"split": n, "path": "p", "rows": 1, "seconds": float(n)} for n in range(9)]
    assert [one["split"] for one in find_slowest(splits)] == [8, 7, 6, 5, 4]
    for number, some in enumerate((splits[:8:2], splits[1::2])):
        log = RunLog(Store(str(tmp_path), {}), number)
        state = {
            "time": "2026-01-01T00:00:00+00:00",
            "verb": "run",
            "task": "t",
            "placement": "local",
        }
        for event, seconds in (("start", 0.0), ("end", 5.0)):
            log.add(RunState(event=event, seconds=seconds, splits_done=4, slowest=some, **state))
        log.write(at_once=True)
    whole = read_history(Store(str(tmp_path), {})).whole()
    assert [one["split"] for one in whole.slowest] == [7, 6, 5, 4, 3]


def test_vectors_are_described():
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([3.0, 4.0, 0.0, 1.0], pa.float32()), 2)
    found = describe_answers([pa.table({"embedding": vectors}), pa.table({"score": [0.51, None]})])
    assert (found.dimension, found.norms) == (2, (1.0, 3.0, 5.0))
    assert sum(found.scores) == found.scores[10] == 1
    assert describe_answers([pa.table({"score": ["high"]})]).scores == []


def test_it_tells_of_rows_labels_and_errors_and_runs_no_code(out, capsys, monkeypatch):
    assert main(["report", str(out)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"output": str(out), "report": f"{out}/_pipemill/report.html"}
    page = Page(out / "_pipemill/report.html")
    assert "61: 60 done, 1 dead" in page.seen
    assert EVIL in page.seen, "a label, as text"
    assert "calm" in page.seen
    assert "column 'text' is null" in page.seen
    assert "tokens" in page.seen
    assert "polyline" in page.tags
    assert "What bound the run: " in page.seen
    assert "Scores" in page.seen
    texts = pq.read_table(out)["text"].drop_null().to_pylist()
    longest = max(map(len, texts))
    assert "Characters of a text (text)" in page.seen
    assert f"up to {2 ** (longest - 1).bit_length():,}" in page.seen
    assert "Slowest splits" in page.seen
    assert page.seen.count(str(out.parent / "in.parquet")) >= 5
    assert (out / "_pipemill/report.html").stat().st_size < 200_000
    assert not page.tags & {"script", "img", "iframe", "link", "a"}
    assert not {name for name in page.attributes if name.startswith("on")} | (
        page.attributes & {"src", "href"}
    )
    assert pipemill.verify(str(out)).ok, "the page is no part"


@pytest.mark.parametrize("task", ["token-classification", "text-classification"])
def test_labels_of_the_input_are_not_taken_for_the_tasks(models, tmp_path, task):
    table = pa.table({"text": ["a river", "the mill"], "label": ["given", "given"]})
    pq.write_table(table, tmp_path / "in.parquet")
    pipemill.run(
        task=task,
        model=models[task],
        input=str(tmp_path / "in.parquet"),
        output=str(tmp_path / "out"),
        actors={"placement": "local"},
    )
    assert main(["report", str(tmp_path / "out")]) == 0
    page = Page(tmp_path / "out/_pipemill/report.html")
    assert "given" not in page.seen
    assert ("Labels" in page.seen) == (task == "text-classification")


@pytest.mark.parametrize("beside", [["x" * 100] * 2, [7, 8]])
def test_an_input_column_called_input_text_is_not_taken_for_the_text(tmp_path, monkeypatch, beside):
    light.install(monkeypatch)
    table = pa.table({"input_text": beside, "text": ["a river", "the mill"]})
    pq.write_table(table, tmp_path / "in.parquet")
    job = light.job(tmp_path, [])
    pipemill.run(job)
    pipemill.report(job["output"]["path"])
    seen = Page(tmp_path / "out/_pipemill/report.html").seen
    assert "up to 8" in seen
    assert "up to 128" not in seen


def test_messages_that_are_no_text_are_shown_as_what_they_can_be(out):
    letter = next((out / "_pipemill/dead-letter").glob("part-*"))
    table = pq.read_table(letter)
    at = table.schema.names.index("message")
    evil = pa.array([f"{EVIL} \x00 \u202e"] * len(table))
    pq.write_table(table.set_column(at, "message", evil), letter)
    assert main(["report", str(out)]) == 0
    assert EVIL in Page(out / "_pipemill/report.html").seen


def test_of_what_is_no_output_it_says_so(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not an output of pipemill" in capsys.readouterr().err


def test_a_page_that_can_not_be_written_is_one_line(out, capsys, monkeypatch):
    def fail(filesystem, path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipemill.jobs.report.write_atomic", fail)
    assert main(["report", str(out)]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"pipemill: can't write {out}/_pipemill/report.html: OSError: [Errno 28] No space left on "
        "device\n"
    )


def test_in_python_it_returns_the_path(out):
    assert pipemill.report(str(out)) == f"{out}/_pipemill/report.html"
    assert "61: 60 done" in Page(out / "_pipemill/report.html").seen
    with pytest.raises(pipemill.ConfigError, match="is not an output of pipemill"):
        pipemill.report(str(out.parent))
