"""Outputs that commit 00a6c82 left half done: later versions go on with them as with their own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import fsspec
import pyarrow.dataset as ds
import pytest
from pipemill.actors.workers.fused import FusedWorker
from pipemill.jobs.cli.app import main
from pipemill.jobs.config.load import build_job
from pipemill.jobs.output import lease
from pipemill.jobs.planning import fingerprint
from pipemill.jobs.prepare import prepare

import pipemill
from tests.references import half_done
from tests.support import light
from tests.support.tables import same_rows

# Of 16 rows in 4 splits two splits were written; in the second two rows died.
DEAD = {5, 6}


@pytest.fixture(params=half_done.JOBS)
def name(request, tmp_path, monkeypatch):
    """A job, whose output and model are in `tmp_path`: both have moved, and the input has not."""
    name = request.param
    shutil.copytree(half_done.OUTPUTS / "models", tmp_path / "models")
    shutil.copytree(half_done.OUTPUTS / name / "output", tmp_path / name)
    half_done.load_input(name, missing=(half_done.MISSING,))
    # The killed run was on another machine: so long a sign of life is waited for.
    monkeypatch.setattr(lease, "EXPIRY_S", 0.2)
    # With other versions of these the results would be another job's.
    then = json.loads((tmp_path / name / "_pipemill/job.json").read_text())["versions"]
    monkeypatch.setattr(fingerprint, "version", then.__getitem__)
    yield name
    fsspec.filesystem("memory").rm("/half-done", recursive=True)


def content(out):
    """The files of an output, but for what is there only while it is written to."""
    files = {file.relative_to(out): file for file in out.rglob("*") if file.is_file()}
    passing = {"attempts", "lease"}
    return {name: file.read_bytes() for name, file in files.items() if not passing & {*name.parts}}


def read_page(out):
    assert main(["report", str(out)]) == 0
    return (out / "_pipemill/report.html").read_text()


def test_it_is_looked_at(name, tmp_path, capsys):
    out = tmp_path / name
    before = content(out)
    assert main(["status", str(out), "--splits"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["task"] == half_done.JOBS[name]["task"]
    assert (told["splits"], told["splits_left"], told["left"]) == (4, 2, 8)
    assert (told["rows"], told["done"], told["dead"]) == (8, 6, 2)
    assert {letter["example"]["row"] for letter in told["dead_letters"]} == DEAD
    assert main(["verify", str(out)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert len(told["findings"]) == 2
    assert all("is missing, the part of split" in finding for finding in told["findings"])
    assert content(out) == before
    assert half_done.JOBS[name]["task"] in read_page(out)


def test_it_is_resumed_and_its_dead_rows_are_tried_again(name, tmp_path):
    out, job = tmp_path / name, half_done.job(name, tmp_path)
    before = content(out)
    report = pipemill.run(job)
    assert (report.rows, report.done, report.dead) == (16, 14, 2)
    assert report.added == {"rows": 8, "done": 8, "dead": 0, "splits": 2}
    after = content(out)
    assert {file: after[file] for file in before} == before, "what was written stays as it is"
    assert len(list(out.glob("part-*"))) == 4
    table = ds.dataset(out).to_table()
    assert table["n"].to_pylist() == [n for n in range(16) if n not in DEAD]
    assert pipemill.run(job).added["splits"] == 0
    checked = pipemill.verify(str(out))
    assert (checked.ok, checked.findings, checked.notes) == (True, [], [])

    # Rows of both versions are those of one.
    anew = {**job, "output": {**job["output"], "path": str(tmp_path / "anew")}}
    assert pipemill.run(anew).done == 14
    assert same_rows(ds.dataset(tmp_path / "anew").to_table(), table)

    half_done.load_input(name)
    changed = {**job["parameters"], **half_done.RETRIES[name]}
    report = pipemill.retry({**job, "parameters": changed})
    assert (report.rows, report.done, report.dead) == (16, 15, 1)
    assert report.added == {"rows": 2, "done": 1, "dead": 1, "splits": 1}
    healed = ds.dataset(out).to_table()
    assert healed["n"].to_pylist() == [n for n in range(16) if n != 6]
    assert healed.filter(ds.field("n") != 5).equals(table)
    assert None not in healed.filter(ds.field("n") == 5).to_pylist()[0].values()
    (letter,) = ds.dataset(out / "_pipemill/dead-letter").to_table().to_pylist()
    assert (letter["split"], letter["row"], letter["attempts"]) == (1, 2, 2)
    checked = pipemill.verify(str(out))
    assert (checked.ok, checked.findings, checked.notes) == (True, [], [])
    assert json.loads(pipemill.status(str(out)).to_json())["splits_left"] == 0
    assert "15" in read_page(out)


def test_one_whose_record_lacks_a_field_that_is_null_now_keeps_its_plan(tmp_path, monkeypatch):
    light.install(monkeypatch)
    job = light.job(tmp_path, [f"text {n}" for n in range(20)])
    prepared = prepare(build_job(job, [], {}, {}))
    place, plan = (tmp_path / "out/_pipemill" / name for name in ("job.json", "plan.parquet/rows"))
    record, planned = json.loads(place.read_text()), plan.stat().st_mtime_ns
    assert record["decides"].pop("input.dataset", "missing") is None
    record["fingerprint"] = fingerprint.hash_fields(record["decides"])
    place.write_text(json.dumps(record))
    sink = replace(prepared.sink, fingerprint=record["fingerprint"])
    FusedWorker(prepared.load, prepared.source, sink).process(prepared.plan.splits[0])
    assert pipemill.run(job).added["splits"] == 1
    assert plan.stat().st_mtime_ns == planned
    assert pipemill.verify(str(tmp_path / "out")).ok
