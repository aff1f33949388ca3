"""Inputs without a row: one empty part with the right columns, until rows come."""

from __future__ import annotations

import io
import tarfile

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipemill.actors.split_table import SplitTable
from pipemill.actors.storage.listing import list_below
from pipemill.actors.storage.store import Store
from pipemill.jobs.cli.app import main

import pipemill
from tests.support import light


@pytest.fixture(autouse=True)
def lengths(monkeypatch):
    light.install(monkeypatch)


def run(folder, source, **more):
    job = light.job(folder, [])
    return pipemill.run(**{**job, "input": source, **more})


def columns(folder):
    """The columns of the output's one part, which has no rows."""
    (part,) = (folder / "out").glob("part-*.parquet")
    assert pq.read_metadata(part).num_rows == 0
    return ds.dataset(folder / "out").schema.names


def parquet(path):
    pq.write_table(pa.table({"id": pa.array([], pa.int32()), "text": pa.array([], "string")}), path)


def arrow(path):
    schema = pa.schema([("id", pa.int32()), ("text", pa.string())])
    with pa.ipc.new_file(str(path), schema):
        pass


def empty_tar(path):
    tarfile.open(path, "w").close()


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("a.parquet", parquet, ["id", "text"]),
        ("a.arrow", arrow, ["id", "text"]),
        ("a.csv", lambda path: path.write_text("id,text\n"), ["id", "text"]),
        ("a.txt", lambda path: path.write_text(""), ["text"]),
        ("a.jsonl", lambda path: path.write_text(""), ["text"]),
        ("a.tar", empty_tar, ["__key__", "text"]),
    ],
)
def test_every_format_without_rows_gives_one_empty_part(tmp_path, name, write, expected, capsys):
    write(tmp_path / name)
    report = run(tmp_path, str(tmp_path / name))
    assert (report.rows, report.dead, report.splits) == (0, 0, 1)
    assert columns(tmp_path) == [*expected, "again", "length"]
    assert run(tmp_path, str(tmp_path / name)).added["splits"] == 0
    assert pipemill.verify(str(tmp_path / "out")).ok
    for verb in ("status", "report"):
        assert main([verb, str(tmp_path / "out")]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "rows",
    [
        pa.table({"id": pa.nulls(0), "text": pa.nulls(0)}),
        pd.DataFrame({"id": [], "text": []}),
        pd.DataFrame(columns=["id", "text"]),
        {"train": pd.DataFrame({"id": [], "text": []}), "test": pd.DataFrame()},
    ],
)
def test_columns_without_rows_need_no_types(tmp_path, rows):
    report = run(tmp_path, rows)
    assert (report.rows, report.splits) == (0, 1)
    more = ["split"] if isinstance(rows, dict) else []
    assert columns(tmp_path) == ["id", "text", *more, "again", "length"]
    schema = pipemill.read(report.output).schema
    assert schema.field("text").type == pa.string()
    assert run(tmp_path, rows).added["splits"] == 0


def test_a_condition_on_a_column_that_only_rows_would_show_is_no_fault(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    model = light.save_model(tmp_path / "model")
    tasks = [
        {"task": "lengths", "model": model, "name": "a", "where": "lang == 'en'"},
        {"task": "lengths", "model": model, "name": "b", "where": "a_length > 1 and n < 3"},
    ]
    job = {"tasks": tasks, "output": str(tmp_path / "out"), "actors": {"placement": "local"}}
    report = pipemill.run({**job, "input": str(tmp_path / "a.jsonl")})
    assert (report.rows, report.splits) == (0, 1)
    assert columns(tmp_path) == [
        *("text", "lang", "n"),
        *("a_again", "a_length", "b_again", "b_length"),
    ]


@pytest.mark.parametrize(
    ("name", "write"), [("a.tar", empty_tar), ("a.jsonl", lambda path: path.write_text(""))]
)
def test_a_kept_column_that_only_rows_would_show_is_no_fault(tmp_path, name, write):
    write(tmp_path / name)
    report = run(tmp_path, str(tmp_path / name), settings=["output.keep=[n, text]"])
    assert (report.rows, report.splits) == (0, 1)
    assert sorted(columns(tmp_path)) == ["again", "length", "n", "text"]


def test_a_kept_column_that_a_header_lacks_is_a_fault(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n")
    with pytest.raises(pipemill.ConfigError, match="output.keep names 'n', which the input"):
        run(tmp_path, str(tmp_path / "a.csv"), settings=["output.keep=[n, text]"])


def test_a_frame_without_columns_is_refused(tmp_path):
    for rows in (pd.DataFrame(), pd.DataFrame(index=range(3)), pa.table({})):
        with pytest.raises(pipemill.ConfigError, match="gave no row, and so no columns"):
            run(tmp_path, rows)
    with pytest.raises(pipemill.ConfigError, match="column 'text' is double"):
        run(tmp_path, pd.DataFrame({"text": [1.5]}))


def test_rows_that_come_later_are_planned_anew(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.jsonl").write_text("")
    run(tmp_path, str(source))
    (source / "a.jsonl").write_text('{"text": "one two", "n": 1}\n')
    for added in (1, 0):
        report = run(tmp_path, str(source))
        assert (report.rows, report.splits, report.added["rows"]) == (1, 1, added)
    assert ds.dataset(tmp_path / "out").to_table().to_pylist()[0]["n"] == 1
    assert len(list((tmp_path / "out").glob("part-*"))) == 1
    assert pipemill.verify(str(tmp_path / "out")).ok


def test_an_old_output_without_a_split_gets_its_empty_part(tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet")
    run(tmp_path, str(tmp_path / "a.parquet"))
    from pipemill.jobs.output.ledger import Ledger

    ledger = Ledger(Store(str(tmp_path / "out")))
    plan = ledger.read_plan()
    (part,) = ledger.parts()
    plan.splits = SplitTable()
    ledger.write_plan(plan)
    ledger.remove(part)
    assert run(tmp_path, str(tmp_path / "a.parquet")).splits == 1
    assert columns(tmp_path) == ["id", "text", "again", "length"]


def test_a_dataset_without_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string")})
    made = datasets.Dataset.from_dict({"text": []}, features=features)
    assert run(tmp_path, made).rows == 0
    assert columns(tmp_path) == ["text", "again", "length"]


def test_columns_that_only_rows_tell_are_declared_or_refused(tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet")
    more = {"task": "mine", "pipeline_class": "tests.support.own_pipelines:PairPipeline"}
    with pytest.raises(pipemill.ConfigError, match=r"the input has no rows.*output\.schema"):
        run(tmp_path, str(tmp_path / "a.parquet"), **more)
    assert not list((tmp_path / "out").glob("part-*"))


def test_an_empty_folder_is_no_input(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(pipemill.ConfigError, match="found no file"):
        run(tmp_path, str(tmp_path / "in"))
    assert list_below(str(tmp_path / "in"), {}, None).files == []


def test_empty_tars_beside_full_ones_and_files_that_are_none(tmp_path):
    (tmp_path / "in").mkdir()
    empty_tar(tmp_path / "in/a.tar")
    (tmp_path / "in/b.tar").write_bytes(b"")
    (tmp_path / "in/c.tar").write_bytes(b"<html><title>404</title></html>")
    with tarfile.open(tmp_path / "in/d.tar", "w") as made:
        info = tarfile.TarInfo("0.text")
        info.size = 3
        made.addfile(info, io.BytesIO(b"one"))
    report = run(tmp_path, {"path": str(tmp_path / "in"), "columns": {"text": "text"}})
    assert (report.rows, report.dead) == (3, 2)
