"""Input files that changed since they were planned: an error, or computed again."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli.app import main
from pipemill.jobs.output.ledger import Ledger

import pipemill
from tests.support import light


@pytest.fixture(autouse=True)
def lengths(monkeypatch):
    light.install(monkeypatch)


def write(folder: Path, name: str, texts: list[str | None]) -> None:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), folder / f"{name}.parquet")


@pytest.fixture
def job(tmp_path):
    """Of two files, 30 and 20 rows in splits of 10, a dead letter in each."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", "a", [f"a{i}" for i in range(29)] + ["bad9"])
    write(tmp_path / "in", "b", ["bad9"] + [f"b{i}" for i in range(19)])
    job = {**light.job(tmp_path, []), "input": str(tmp_path / "in")}
    assert pipemill.run(job).dead == 2
    return job


def read(job):
    return pipemill.read(job["output"]["path"]).to_table()["text"].to_pylist()


def parts(job):
    return {path.name for path in Path(job["output"]["path"]).glob("*.parquet")}


@pytest.mark.parametrize("rows", [7, 30, 60], ids=["fewer", "as many", "more"])
def test_a_file_that_changed_is_computed_again_where_it_was(tmp_path, job, rows):
    before = parts(job)
    write(tmp_path / "in", "a", ["bad8"] + [f"new{i}" for i in range(rows - 1)])
    with pytest.raises(pipemill.ConfigError, match=r"a\.parquet has changed.*on-changed reprocess"):
        pipemill.run(job)
    report = pipemill.run(job, on_changed="reprocess")
    assert (report.rows, report.dead, report.added["rows"]) == (rows + 20, 2, rows)
    new, kept = [f"new{i}" for i in range(rows - 1)], [f"b{i}" for i in range(19)]
    assert read(job) == new[:29] + kept + new[29:], "what has no place comes last"
    assert len(parts(job) & before) == 2, "those of the other file stay"
    letters = pipemill.read(job["output"]["path"], dead_letters=True).to_table()
    assert sorted(letters["text"].to_pylist()) == ["bad8", "bad9"]
    found = pipemill.verify(job["output"]["path"])
    assert (found.ok, found.rows, found.findings) == (True, rows + 20, [])
    assert pipemill.run(job).added["rows"] == 0


def test_what_is_left_of_a_stopped_try_is_done_by_the_next(tmp_path, job, monkeypatch):
    write(tmp_path / "in", "b", ["c"] * 12)

    def stop(ledger, plan):
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "write_plan", stop)
        with pytest.raises(OSError, match="no room"):
            pipemill.run(job, on_changed="reprocess")
    assert read(job) == [f"a{i}" for i in range(29)], "no row twice"
    with pytest.raises(pipemill.ConfigError, match=r"b\.parquet has changed"):
        pipemill.run(job)
    pipemill.run(job, on_changed="reprocess")
    assert read(job) == [f"a{i}" for i in range(29)] + ["c"] * 12
    assert pipemill.verify(job["output"]["path"]).ok


def test_what_a_late_worker_writes_of_the_old_file_is_removed(tmp_path, job, monkeypatch):
    output = Path(job["output"]["path"])
    old = {path.relative_to(output): path.read_bytes() for path in output.rglob("part-*.parquet")}
    write(tmp_path / "in", "a", ["new"])
    write_plan = Ledger.write_plan

    def write_late(ledger, plan):
        write_plan(ledger, plan)
        for name, data in old.items():
            (output / name).write_bytes(data)

    monkeypatch.setattr(Ledger, "write_plan", write_late)
    pipemill.run(job, on_changed="reprocess")
    assert read(job) == ["new", *(f"b{i}" for i in range(19))]
    found = pipemill.verify(output)
    assert (found.ok, found.findings) == (True, [])


def test_a_bundle_is_computed_again_if_one_of_its_files_changed(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(25):
        (photos / f"{i:02}.jpg").write_bytes(b"%d" % i)
    job = light.job(tmp_path, [])
    job |= {"input": {"path": str(photos), "columns": {"text": "path"}}}
    pipemill.run(job)
    before, paths = parts(job), pipemill.read(job["output"]["path"], ["path"]).to_table()
    (photos / "12.jpg").write_bytes(b"another one")
    assert pipemill.run(job, on_changed="reprocess").added["splits"] == 1
    assert len(parts(job) - before) == len(before - parts(job)) == 1
    assert pipemill.read(job["output"]["path"], ["path"]).to_table() == paths
    assert pipemill.verify(job["output"]["path"]).ok
    (photos / "11.jpg").unlink()
    (photos / "12.jpg").write_bytes(b"and another")
    with pytest.raises(pipemill.ConfigError, match=r"11\.jpg is not in the input, and shares"):
        pipemill.run(job, on_changed="reprocess")


def test_rows_of_a_file_that_is_gone_can_be_left_out(tmp_path, job):
    """Else the job could never be done."""
    gone = sorted(Path(job["output"]["path"]).glob("*.parquet"))[1]
    gone.unlink()
    (tmp_path / "in/a.parquet").unlink()
    write(tmp_path / "in", "c", ["c0"])
    with pytest.raises(pipemill.RunError, match=r"a\.parquet no longer exists: put it back, or le"):
        pipemill.run(job)
    report = pipemill.run(job, on_changed="reprocess")
    assert (report.rows, report.dead, report.added["rows"]) == (41, 2, 0)
    kept = [*range(10), *range(20, 29)]
    assert read(job) == [*(f"a{i}" for i in kept), *(f"b{i}" for i in range(19)), "c0"]
    found = pipemill.verify(job["output"]["path"])
    assert (found.ok, found.rows) == (True, 41)
    assert pipemill.run(job).added["splits"] == 0


def test_what_on_changed_can_not_do_is_said(tmp_path, job, capsys):
    write(tmp_path / "in", "a", ["other"])
    config = tmp_path / "job.yaml"
    config.write_text(json.dumps({**job, "input": {"path": job["input"], "limit": 40}}))
    other = ["--set", f"output.path={tmp_path / 'other'}"]
    assert main(["run", str(config), *other]) == 0
    write(tmp_path / "in", "a", ["another", "one"])
    capsys.readouterr()
    assert main(["run", str(config), *other, "--on-changed", "reprocess"]) == 2
    assert "with input.limit it can't be computed again" in capsys.readouterr().err
    assert main(["run", str(config), "--on-changed", "again"]) == 2
    err = capsys.readouterr().err
    assert "--on-changed must be error or reprocess, not 'again'" in err
