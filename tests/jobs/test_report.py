"""What a run says of texts that were cut: in its report, and in the parts for later runs."""

from __future__ import annotations

import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli import main

import pipemill
from tests import tiny

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
    assert json.loads(report.to_json()) == asdict(report)
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
