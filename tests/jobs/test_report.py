"""The page about an output: what it tells, and that nothing in it runs."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli.app import main

import pipemill
from tests.support import tiny

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
    )
    return tmp_path / "out"


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


def test_messages_that_are_no_text_are_shown_as_what_they_can_be(out):
    letter = next((out / "_pipemill/dead-letter").glob("*/rows"))
    table = pq.read_table(letter)
    at = table.schema.names.index("message")
    evil = pa.array([f"{EVIL} \x00 \u202e"] * len(table))
    pq.write_table(table.set_column(at, "message", evil), letter)
    assert main(["report", str(out)]) == 0
    assert EVIL in Page(out / "_pipemill/report.html").seen


def test_of_what_is_no_output_it_says_so(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not an output of pipemill" in capsys.readouterr().err


def test_in_python_it_returns_the_path(out):
    assert pipemill.report(str(out)) == f"{out}/_pipemill/report.html"
    assert "61: 60 done" in Page(out / "_pipemill/report.html").seen
    with pytest.raises(pipemill.ConfigError, match="is not an output of pipemill"):
        pipemill.report(str(out.parent))
