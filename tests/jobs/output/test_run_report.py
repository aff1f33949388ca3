"""What a run says of texts that were cut: in its report, and in the parts for later runs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli.app import main
from pipemill.jobs.output.run_report import Report, compute_metrics

import pipemill
from tests.support import tiny

# Of every 10 texts one is longer than the models' 128 tokens.
TEXTS = [tiny.sentence(90 + n if n % 10 == 3 else 5, n) for n in range(60)]
EXCESS = [max(len(ids) - 128, 0) for ids in tiny.tokenizer()(TEXTS)["input_ids"]]


@pytest.fixture
def wanted(models, tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    return {
        "task": "text-classification",
        "model": models["text-classification"],
        "input": str(tmp_path / "in.parquet"),
        "output": {"path": str(tmp_path / "out"), "rows_per_part": 15},
        "parameters": {"truncation": True},
        "actors": {"placement": "local"},
    }


def parts(tmp_path):
    return sorted((tmp_path / "out").glob("part-*"))


def footer(part):
    return json.loads(pq.read_metadata(part).metadata[b"pipemill"])


def test_what_was_cut_is_counted_over_the_whole_output_by_every_run(wanted, tmp_path):
    assert (sum(e > 0 for e in EXCESS), min(e for e in EXCESS if e)) >= (6, 2)
    whole = {"rows": 6, "tokens": sum(EXCESS)}
    assert pipemill.run(wanted).truncated == whole
    footers = [footer(part) for part in parts(tmp_path)]
    for i, own in enumerate(footers):
        excess = EXCESS[i * 15 : i * 15 + 15]
        assert own["truncated_rows"] == sum(e > 0 for e in excess)
        assert own["lost_tokens"] == sum(excess)
    parts(tmp_path)[1].unlink()
    resumed = pipemill.run(wanted)
    assert (resumed.truncated, resumed.added["rows"]) == (whole, 15)
    nothing_left = pipemill.run(wanted)
    assert (nothing_left.truncated, nothing_left.added["rows"]) == (whole, 0)


def test_it_is_said_in_every_form_of_the_report(wanted, capsys):
    report = pipemill.run(wanted)
    line = f"6 rows lost {sum(EXCESS):,} tokens of their texts"
    assert f"truncated     {line}" in str(report)
    assert line in report._repr_html_()
    unsaid = ("engine", "left_out", "notes", "published", "tasks")
    told = {name: value for name, value in asdict(report).items() if name not in unsaid}
    told["dead_letters"] = told.pop("dead_reasons")
    assert json.loads(report.to_json()) == told
    flags = {name: wanted[name] for name in ("task", "model", "input")}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    words += ["--output", wanted["output"]["path"], "--param", "truncation=true"]
    assert main(["run", *words]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["truncated"] == report.truncated
    assert line in err


def test_nothing_is_said_where_nothing_was_cut(wanted):
    report = pipemill.run(wanted | {"parameters": {}})
    assert (report.done, report.truncated) == (60, None), "long texts are windows"
    assert "truncated" not in json.loads(report.to_json())
    assert "truncated" not in str(report)
    assert "truncated" not in report._repr_html_()


def test_footers_without_these_counts_are_read(wanted, tmp_path):
    pipemill.run(wanted)
    old = parts(tmp_path)[0]
    table = pq.read_table(old)
    less = {k: v for k, v in footer(old).items() if k not in ("truncated_rows", "lost_tokens")}
    pq.write_table(table.replace_schema_metadata({"pipemill": json.dumps(less)}), old)
    report = pipemill.run(wanted)
    assert report.rows == 60
    assert report.truncated == {"rows": 4, "tokens": sum(EXCESS[15:])}


def test_how_it_was_computed_is_in_every_form_of_the_report(wanted, tmp_path):
    # A part is a split: each of the four has every text three times, and one of its own.
    few = TEXTS[4:8]
    texts = [text for i in range(4) for text in [*few, *few, *few, TEXTS[10 + i], "", ""]]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    batching = {"max_tokens": 700}
    report = pipemill.run(wanted | {"batching": batching, "parameters": {}})
    assert (report.packed, report.padding, report.max_tokens) == (1, 0, 700)
    assert report.repeated == 4 * (8 + 1)
    assert 0 < report.device_busy <= 1
    said = json.loads(report.to_json())
    for name in ("packed", "repeated", "max_tokens", "device_busy"):
        assert said[name] == getattr(report, name)
    lines = [
        "padding       none (packed)",
        "repeats       36 chunks computed once",
        "budget        700 tokens a micro-batch",
        f"device busy   {100 * report.device_busy:.0f} %",
    ]
    for line in lines:
        assert line in str(report)
        assert line[14:] in report._repr_html_()
    nothing_left = pipemill.run(wanted | {"batching": batching, "parameters": {}})
    assert nothing_left.packed is nothing_left.device_busy is nothing_left.repeated is None
    assert "device busy" not in str(nothing_left)


def test_what_splits_counted_adds_up_to_shares():
    work = {"tokens": 60, "padded_tokens": 80, "packed_tokens": 15, "repeated_chunks": 7.0}
    work |= {"budget_1024": 2, "budget_512": 3, "actor_seconds": 10.0, "forward_seconds": 9.25}
    told = compute_metrics(work)
    assert told == {
        "padding": 0.25,
        "packed": 0.25,
        "repeated": 7,
        "max_tokens": 512,
        "device_busy": 0.925,
    }
    assert compute_metrics({}) == {}
    assert compute_metrics({**work, "budget_512": 1})["max_tokens"] == 1024
    padded = Report(
        rows=1, done=1, dead=0, seconds=1, rows_per_second=1, output="", splits=1, **told,
        added={"splits": 1, "rows": 1},
    )  # fmt: skip
    assert "padding       25.0% of the tokens computed (25% packed)" in str(padded)
    assert "tokens computed (not packed)" in str(replace(padded, packed=0.0))
