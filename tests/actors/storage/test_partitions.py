"""Folders such as lang=en/ are columns, whatever the format of the files in them."""

from __future__ import annotations

import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.reading import Reading
from pipemill.actors.storage.store import Store
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import list_files

import pipemill
from tests.actors.sources.test_webdataset import tar
from tests.support import light
from tests.support.splits import plan, read, rows


def parquet(text):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [text]}), sink)
    return sink.getvalue().to_pybytes()


def arrow(text):
    sink = pa.BufferOutputStream()
    table = pa.table({"text": [text]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


FORMATS = {
    "parquet": parquet,
    "arrow": arrow,
    "jsonl": lambda text: json.dumps({"text": text}).encode(),
    "jsonl.gz": lambda text: gzip.compress(json.dumps({"text": text}).encode()),
    "csv": lambda text: f"text\n{text}\n".encode(),
    "txt": lambda text: f"{text}\n".encode(),
    "png": lambda text: text.encode(),
    "tar": lambda text: tar([("0.text", text.encode())]),
}


def write(folder, suffix, *places):
    for place in places:
        path = folder / place / f"a.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FORMATS[suffix](place))


def values(made, *names):
    return [tuple(row[name] for name in names) for row in rows(read(made))]


@pytest.mark.parametrize("suffix", FORMATS)
def test_folders_of_every_format_are_columns(tmp_path, suffix):
    write(tmp_path, suffix, "lang=en/year=2023/m=01", "lang=de%20%3D/year=2024/m=02")
    write(tmp_path, suffix, "lang=__HIVE_DEFAULT_PARTITION__/year=2024/m=02")
    made = Plan.from_bytes(plan(tmp_path).to_bytes())
    assert made.schema.names[-3:] == ["lang", "year", "m"]
    assert made.schema.types[-3:] == [pa.string(), pa.int64(), pa.string()]
    assert set(values(made, "lang", "year", "m")) == {
        (None, 2024, "02"),
        ("de =", 2024, "02"),
        ("en", 2023, "01"),
    }
    (schema,) = {batch.rows.schema for batch in read(made)}
    assert not schema.field("lang").metadata
    # A pattern names the folders above its first wildcard, too.
    assert plan(f"{tmp_path}/lang=*/*/*/a.{suffix}").schema.names[-1] == "m"
    assert "lang" not in plan(f"{tmp_path}/lang=en").schema.names
    assert plan(f"{tmp_path}/lang=en").schema.names[-2:] == ["year", "m"]
    assert "m" not in plan(f"{tmp_path}/lang=en/year=2023/m=01/a.{suffix}").schema.names


@pytest.mark.parametrize(
    ("folders", "kind"),
    [
        (["k=1", "k=-20", "k=0"], pa.int64()),
        (["k=1", "k=__HIVE_DEFAULT_PARTITION__"], pa.int64()),
        (["k=1", "k=01"], pa.string()),
        (["k=1", "k=+1"], pa.string()),
        (["k=1", "k=1.0"], pa.string()),
        (["k=1", "k="], pa.string()),
        (["k=1", "k=9999999999999999999"], pa.string()),
        (["k=__HIVE_DEFAULT_PARTITION__"], pa.string()),
    ],
)
def test_values_are_whole_numbers_only_if_they_read_the_same(tmp_path, folders, kind):
    write(tmp_path, "txt", *folders)
    made = plan(tmp_path)
    assert made.schema.field("k").type == kind
    told = {folder.partition("=")[2] for folder in folders}
    got = {str(value) for (value,) in values(made, "k") if value is not None}
    assert got == told - {"__HIVE_DEFAULT_PARTITION__"}


def test_folders_that_differ_are_no_columns_and_a_files_own_column_stays(tmp_path):
    write(tmp_path, "jsonl", "a=1", "plain")
    assert plan(tmp_path).schema.names == ["text"]
    write(tmp_path / "own", "jsonl", "text=x/b=2")
    assert values(plan(tmp_path / "own"), "text", "b") == [("text=x/b=2", 2)]


def test_a_job_reads_keeps_and_resumes_what_folders_name(tmp_path, monkeypatch):
    light.install(monkeypatch)
    write(tmp_path / "in", "parquet", "lang=en", "lang=de")
    job = {**light.job(tmp_path, []), "input": str(tmp_path / "in")}
    assert pipemill.run(job).rows == 2
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.column_names == ["text", "lang", "again", "length"]
    assert table["lang"].to_pylist() == ["de", "en"]
    write(tmp_path / "in", "parquet", "lang=fr")
    assert pipemill.run(job).added["rows"] == 1
    # What folders name may be all that is read.
    only = {"path": str(tmp_path / "in"), "columns": {"text": "lang"}}
    output = {"path": str(tmp_path / "two"), "keep": ["lang"]}
    assert pipemill.run({**job, "input": only, "output": output}).rows == 3
    table = ds.dataset(tmp_path / "two").to_table()
    assert table["again"].to_pylist() == ["DE", "EN", "FR"]
    assert table.column_names == ["lang", "again", "length"]


def test_an_output_that_was_planned_without_folders_goes_on_without(tmp_path, monkeypatch):
    light.install(monkeypatch)
    write(tmp_path / "in", "parquet", "lang=en", "lang=de")
    job = {**light.job(tmp_path, []), "input": str(tmp_path / "in")}
    pipemill.run(job)
    from pipemill.jobs.output.ledger import Ledger

    ledger = Ledger(Store(str(tmp_path / "out")))
    old = ledger.read_plan()
    old.schema = old.schema.remove(old.schema.get_field_index("lang"))
    ledger.write_plan(old)
    for part in ledger.parts():
        ledger.remove(part)
    write(tmp_path / "in", "parquet", "lang=fr")
    assert pipemill.run(job).rows == 3
    assert ds.dataset(tmp_path / "out").schema.names == ["text", "again", "length"]
    assert pipemill.verify(str(tmp_path / "out")).ok


def test_a_folder_that_names_no_number_where_others_did_is_told(tmp_path, monkeypatch):
    light.install(monkeypatch)
    write(tmp_path / "in", "txt", "year=2023")
    job = {**light.job(tmp_path, []), "input": str(tmp_path / "in")}
    pipemill.run(job)
    write(tmp_path / "in", "txt", "year=unknown")
    with pytest.raises(
        pipemill.ConfigError, match=r"year=unknown does not name a whole number.*name another"
    ):
        pipemill.run(job)


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "csv"])
def test_their_types_are_declared_as_those_of_other_columns(tmp_path, monkeypatch, suffix):
    light.install(monkeypatch)
    null = "year=2/day=__HIVE_DEFAULT_PARTITION__/text=3"
    write(tmp_path / "in", suffix, "year=01/day=2024-01-31/text=2", null)
    types = {"year": "float64", "day": "date32", "text": "string"}  # `text` is in the files, too
    job = {**light.job(tmp_path, []), "input": {"path": str(tmp_path / "in"), "schema": types}}
    assert pipemill.run(job).done == 2
    table = pipemill.read(str(tmp_path / "out")).to_table()
    kinds = {name: table.schema.field(name).type for name in types}
    assert kinds == {"year": pa.float64(), "day": pa.date32(), "text": pa.string()}
    assert table["year"].to_pylist() == [1, 2]
    assert table["day"].to_pylist() == [datetime.date(2024, 1, 31), None]
    assert table["text"].to_pylist()[1] == null
    write(tmp_path / "in", suffix, "year=x/day=2024-01-31/text=4")
    why = r"input\.schema\.year: the folder year=x does not name a double"
    job["output"] = {"path": str(tmp_path / "two")}
    with pytest.raises(pipemill.ConfigError, match=why):
        pipemill.run(job)


def test_of_files_whose_own_columns_have_fixed_types(tmp_path):
    (tmp_path / "in/label=3").mkdir(parents=True)
    (tmp_path / "in/label=3/a.jpg").write_bytes(b"x")
    files = list_files(str(tmp_path / "in"), "files", {}, None).files
    for name, fits in (("label", True), ("path", False)):
        source = open_source("files", {}, None, Reading(types={name: pa.string()}))
        if fits:
            assert source.infer_schema(files).field("label").type == pa.string()
        else:
            with pytest.raises(pipemill.ConfigError, match="the type of 'path' can't be changed"):
                source.infer_schema(files)
