"""Outputs as other programs read them: one dataset, with the rows and columns of the parts."""

from __future__ import annotations

import io
from pathlib import Path

import dask.dataframe
import datasets
import duckdb
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pipemill
from tests.support import light

TEXTS = [f"text {i}" if i % 5 else f"bad{i % 3 + 1}" for i in range(40)]
TEXTS[6:13] = ["bad3"] * 7  # a part without a row
HEALED = [i for i in range(40) if TEXTS[i] not in ("bad2", "bad3")]
COLUMNS = ["n", "text", "image", "tags", "box", "lang", "again", "length"]


def load_dataset(files, cache):
    return datasets.load_dataset(files, cache_dir=str(cache))["train"].with_format("arrow")[:]


READERS = {
    "pyarrow": lambda out, _: ds.dataset(out).to_table(),
    "pyarrow.parquet": lambda out, _: pq.read_table(out),
    "pandas": lambda out, _: pa.Table.from_pandas(pd.read_parquet(out)),
    "polars *": lambda out, _: polars.scan_parquet(f"{out}/*.parquet").collect().to_arrow(),
    "polars **": lambda out, _: polars.scan_parquet(f"{out}/**/*.parquet").collect().to_arrow(),
    "duckdb *": lambda out, _: duckdb.sql(f"from '{out}/*.parquet'").to_arrow_table(),
    "duckdb **": lambda out, _: duckdb.sql(f"from '{out}/**/*.parquet'").to_arrow_table(),
    "duckdb": lambda out, _: duckdb.sql(f"from read_parquet('{out}')").to_arrow_table(),
    "dask": lambda out, _: pa.Table.from_pandas(dask.dataframe.read_parquet(out).compute()),
    "datasets": load_dataset,
    "pipemill": lambda out, _: pipemill.read(out).to_table(),
}


def image(color):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (color, 9, 9)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job of five parts over a folder that Hive would partition, with columns of all kinds."""
    folder = tmp_path_factory.mktemp("readers")
    rows = {
        "n": list(range(40)),
        "text": TEXTS,
        "image": [image(i) for i in range(40)],
        "tags": [["a"] * (i % 3) for i in range(40)],
        "box": [{"x": i, "labels": ["b", None]} for i in range(40)],
    }
    for lang, first in (("de", 0), ("en", 20)):
        (folder / f"in/lang={lang}").mkdir(parents=True)
        table = pa.table({name: values[first : first + 20] for name, values in rows.items()})
        pq.write_table(table, folder / f"in/lang={lang}/rows.parquet")
    job = light.job(folder, [], output={"rows_per_part": 8})
    return {**job, "input": str(folder / "in")}


@pytest.fixture(scope="module")
def out(job):
    """An output that was resumed, with dead letters, a report, and files that killed runs left."""
    folder = Path(job["output"]["path"])
    with pytest.MonkeyPatch.context() as patch:
        light.install(patch)
        report = pipemill.run(job)
        assert report.splits > 4
        parts = sorted(folder.glob("part-*"))
        parts[1].unlink()
        assert pipemill.run(job).added["splits"] == 1
        pipemill.retry({**job, "parameters": {"healed": 1}})
    assert 0 in [pq.read_metadata(part).num_rows for part in parts]
    pipemill.report(folder)
    (folder / f".{parts[0].name}.0123.tmp").write_bytes(b"half")
    attempts = folder / "_pipemill/attempts"
    attempts.mkdir(exist_ok=True)
    (attempts / f"{parts[2].name}.0123").write_text("{}")
    return str(folder)


# They read every file called .parquet in a folder or below it, and so dead letters, too.
BELOW = {"polars **", "duckdb **", "duckdb", "dask"}


@pytest.mark.parametrize("reader", sorted(BELOW))
def test_without_dead_letters_every_reader_finds_the_rows_and_nothing_else(
    job, reader, tmp_path, monkeypatch
):
    light.install(monkeypatch)
    output = {**job["output"], "path": str(tmp_path / "out")}
    report = pipemill.run({**job, "output": output, "parameters": {"healed": 3}})
    assert not report.dead
    table = READERS[reader](str(tmp_path / "out"), tmp_path)
    assert table["n"].to_pylist() == list(range(40))


@pytest.mark.parametrize("reader", sorted(READERS.keys() - BELOW))
def test_beside_dead_letters_a_reader_finds_the_rows_and_nothing_else(out, reader, tmp_path):
    assert pipemill.status(out).dead
    table = READERS[reader](out, tmp_path)
    assert table["n"].to_pylist() == HEALED
    assert [name for name in table.schema.names if not name.startswith("__")] == COLUMNS
    expected = ds.dataset(out).to_table()
    for name in COLUMNS:
        assert table[name].to_pylist() == expected[name].to_pylist(), name
    assert table["image"].to_pylist()[:2] == [image(0), image(1)]


def test_ray_finds_the_rows_and_nothing_else(out, ray_session):
    import ray

    rows = ray.data.read_parquet(out).take_all()
    expected = ds.dataset(out).to_table().to_pylist()
    assert len(rows) == len(HEALED)
    assert sorted(rows, key=lambda row: row["n"]) == expected


# `datasets` itself has no dataset without a row.
@pytest.mark.parametrize("reader", sorted(READERS.keys() - {"datasets"}))
def test_an_output_without_rows_has_its_columns(job, reader, tmp_path, monkeypatch):
    light.install(monkeypatch)
    none = {**light.job(tmp_path, []), "input": str(tmp_path / "in.parquet")}
    pipemill.run(none)
    table = READERS[reader](none["output"]["path"], tmp_path)
    assert (len(table), table.schema.names) == (0, ["n", "text", "again", "length"])


def test_tables_of_the_state_are_read_by_their_names(out):
    """As documented: dead letters are files; a folder with one file is read like a file."""
    state = Path(out) / "_pipemill"
    (first, *others) = sorted((state / "dead-letter").glob("*.parquet"))
    assert others
    letters = pipemill.read(out, dead_letters=True).to_table()
    one = letters.filter(pa.compute.equal(letters["split"], letters["split"][0])).to_pylist()
    assert pq.read_table(first).to_pylist() == one
    assert polars.read_parquet(first).to_dicts() == one
    assert pd.read_parquet(first)["n"].tolist() == [row["n"] for row in one]
    assert ds.dataset(state / "dead-letter").to_table().to_pylist() == letters.to_pylist()
    assert pq.ParquetFile(first).read().to_pylist() == one
    files = duckdb.sql(f"select n from '{state}/dead-letter/*.parquet' order by n")
    assert [row for (row,) in files.fetchall()] == letters["n"].to_pylist()
    assert pq.read_table(state / "plan.parquet")["number"].to_pylist() == list(range(6))


@pytest.mark.parametrize("reader", ["polars **", "duckdb **", "duckdb", "dask"])
def test_rows_that_the_output_stores_as_its_input_are_not_read(reader, tmp_path, monkeypatch):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, ["a", "b"]) | {"input": pa.table({"text": ["one", "three"]})}
    pipemill.run(wanted)
    table = READERS[reader](str(tmp_path / "out"), tmp_path)
    assert table["length"].to_pylist() == [3, 5]
