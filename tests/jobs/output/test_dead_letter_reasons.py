"""Why rows are dead: in the summary, the JSON line, `status` and the page."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli.app import main
from pipemill.jobs.output import dead_letter_reasons
from pipemill.jobs.output.dead_letter_reasons import strip_values
from pipemill.jobs.output.run_report import Report

import pipemill
from tests.support import light

TEXTS = [f"bad{i}" if i % 5 == 3 else None if i == 11 else f"text {i}" for i in range(30)]
BAD = sum(text is not None and text.startswith("bad") for text in TEXTS)


@pytest.fixture
def wanted(tmp_path, monkeypatch):
    light.install(monkeypatch)
    return light.job(tmp_path, TEXTS)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("bad3 is not healed", "bad28 is not healed", True),
        ("column 'text' is 5, not a text", "column 'text' is -12.5e3, not a text", True),
        ("column 'text' is null", "column 'label' is null", False),
        ("no file at '/data/a 1.png'", "no file at '/data/b.png'", True),
        ("no file at s3://bucket/a/1.png (404)", "no file at s3://bucket/c.png (404)", True),
        ("labels ['a', 'b'] are there", "labels ['c'] are there", True),
        ("it isn't 'x'", "it can't be 'x'", False),
        ("[1, 2, 3] is too long", "[4, 5] is too long", True),
        ("expected a number", "expected a text", False),
    ],
)
def test_messages_that_differ_in_values_are_of_one_kind(one, other, same):
    assert (strip_values(one) == strip_values(other)) is same


def test_every_form_of_the_summary_tells_them(wanted, tmp_path, capsys):
    report = pipemill.run(wanted)
    path = str(tmp_path / "in.parquet")
    healed, null = report.dead_reasons
    assert healed == {
        "stage": "regroup",
        "error": "ValueError",
        "message": "bad3 is not healed",
        "count": BAD,
        "example": {"input": path, "row": 3, "split": 0, "split_row": 3},
    }
    # Of the second split, whose first row is the file's eleventh.
    assert (null["count"], null["message"]) == (1, "column 'text' is null")
    assert null["example"] == {"input": path, "row": 11, "split": 1, "split_row": 1}
    assert (report.dead_kinds, report.dead_read, report.dead) == (2, BAD + 1, BAD + 1)
    line = f"{BAD} × regroup: ValueError: bad3 is not healed ({path}, row 3)"
    assert line in str(report)
    assert line in report._repr_html_().replace("&#x27;", "'")
    assert json.loads(report.to_json())["dead_letters"] == report.dead_reasons
    nothing_left = pipemill.run(wanted)
    assert nothing_left.dead_reasons == report.dead_reasons
    assert main(["status", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["dead_letters"] == report.dead_reasons
    assert line in err
    assert main(["report", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/_pipemill/report.html").read_text()
    assert "<b>regroup: ValueError</b>" in page
    assert f'<span class="number">{BAD}</span></div>\n<p>bad3 is not healed</p>' in page
    assert f"{path}, row 3" in page


def test_rows_that_have_an_answer_since_are_not_counted(wanted):
    pipemill.run(wanted)
    healed = pipemill.retry({**wanted, "parameters": {"healed": 13}})
    left = sum(text is not None and text.startswith("bad") and int(text[3:]) > 13 for text in TEXTS)
    assert [one["count"] for one in healed.dead_reasons] == [left, 1]
    assert healed.dead_read == healed.dead == left + 1


def test_letters_left_by_a_killed_retry_are_not_counted(wanted, tmp_path):
    pipemill.run(wanted)
    letters = sorted((tmp_path / "out/_pipemill/dead-letter").glob("part-*"))
    before = [path.read_bytes() for path in letters]
    pipemill.retry({**wanted, "parameters": {"healed": 99}})
    for path, data in zip(letters, before, strict=True):  # as a kill between its writes leaves them
        path.write_bytes(data)
    report = pipemill.run(wanted)
    assert [one["message"] for one in report.dead_reasons] == ["column 'text' is null"]
    assert report.dead_read == report.dead == 1


def test_many_kinds_and_very_many_letters_say_that_some_are_left_out(tmp_path, monkeypatch):
    light.install(monkeypatch)
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split()

    def fail(self, rows, outputs):
        raise TypeError(f"a thing called {rows['text'][0]}")

    monkeypatch.setattr(light.Light, "regroup", fail)
    wanted = light.job(tmp_path, words, 3)
    report = pipemill.run(wanted)
    assert (len(report.dead_reasons), report.dead_kinds) == (10, 12)
    assert "… and 2 more kinds" in str(report)
    assert "of the 12 dead letters" not in str(report)
    monkeypatch.setattr(dead_letter_reasons, "_FILES", 2)
    some = pipemill.run(wanted)
    assert (some.dead, some.dead_read) == (12, 6)
    assert "(of 6 of the 12 dead letters)" in str(some)
    monkeypatch.setattr(dead_letter_reasons, "_MESSAGES", 4)
    assert pipemill.run(wanted).dead_read == 4


def test_without_dead_rows_nothing_is_said_of_them(tmp_path, monkeypatch):
    light.install(monkeypatch)
    report = pipemill.run(light.job(tmp_path, ["a", "b"]))
    assert (report.dead_reasons, report.dead_kinds) == ([], 0)
    assert "dead letters" not in str(report)


def test_lines_of_a_file_and_files_of_a_bundle_are_named(tmp_path, monkeypatch):
    light.install(monkeypatch)
    lines = [json.dumps({"text": f"text {i:03}"}) for i in range(400)]
    lines[3], lines[390] = "{", '{"text": "bad7"}'
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    wanted = light.job(tmp_path, [], output={"rows_per_part": 100})
    report = pipemill.run({**wanted, "input": str(tmp_path / "in.jsonl")})
    assert report.splits > 1
    places = {one["error"]: one["example"] for one in report.dead_reasons}
    first, last = places["JSONDecodeError"], places["ValueError"]
    assert (first["input"], first["row"]) == (str(tmp_path / "in.jsonl"), 3)
    assert last["row"] in (390, None)  # where only reading tells, its split and its row there
    place = "row 390" if last["row"] else f"row {last['split_row']} of split {last['split']}"
    assert f"in.jsonl, {place})" in str(report)


def test_old_parts_without_a_letter_file_are_no_hindrance(wanted, tmp_path):
    pipemill.run(wanted)
    letters = sorted((tmp_path / "out/_pipemill/dead-letter").glob("part-*"))
    letters[0].unlink()
    letters[1].write_bytes(b"not Parquet")
    report = pipemill.run(wanted)
    assert report.dead == BAD + 1
    assert report.dead_read == sum(t is not None and t.startswith("bad") for t in TEXTS[20:])
    assert f"(of {report.dead_read} of the {report.dead} dead letters)" in str(report)


def test_a_report_can_be_made_without_them():
    added = {"rows": 1, "done": 1, "dead": 0, "splits": 1}
    plain = Report(
        rows=1, done=1, dead=0, seconds=1, rows_per_second=1, output="o", splits=1, added=added
    )
    assert "dead letters" not in str(plain)


def test_input_columns_of_these_names_are_not_taken_for_the_reasons(tmp_path, monkeypatch):
    light.install(monkeypatch)
    table = {"text": ["bad1", "a"], "message": ["mine", "mine"], "error": [1, 2], "row": [7, 7]}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    (one,) = pipemill.run(light.job(tmp_path, [])).dead_reasons
    assert (one["message"], one["example"]["row"]) == ("bad1 is not healed", 0)
