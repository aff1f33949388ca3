"""The features of `datasets` come back from the parts as it wrote them into the input."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pipemill.actors.sources.schemas.hf_features import find_common_features, make_metadata
from pipemill.actors.storage.store import Store

import pipemill
from tests.support import light

datasets = pytest.importorskip("datasets")

KINDS = datasets.ClassLabel(names=["ham", "spam"])


@pytest.fixture(autouse=True)
def lengths(monkeypatch):
    light.install(monkeypatch)


@pytest.fixture
def rows(tmp_path):
    """Rows with a class, a picture, and a column of the name of a result."""
    Image.new("RGB", (4, 3), (200, 0, 0)).save(tmp_path / "red.png")
    made = datasets.Dataset.from_dict(
        {
            "text": ["one", "bad1", "three"],
            "kind": [0, 1, 0],
            "length": [1, 0, 1],
            "picture": [str(tmp_path / "red.png")] * 3,
            "plain": [[1.5]] * 3,
        }
    )
    for name, feature in {"kind": KINDS, "length": KINDS, "picture": datasets.Image()}.items():
        made = made.cast_column(name, feature)
    return made


def run(folder, source, verb=pipemill.run, rows_per_part=10, **more):
    return verb(**{**light.job(folder, [], rows_per_part), "input": source, **more})


def given(form, rows, folder):
    """The rows as an input of this form."""
    if form == "dataset":
        return rows
    if form == "saved":
        rows.save_to_disk(folder / "saved")
        return str(folder / "saved")
    rows.to_parquet(folder / "rows.parquet")
    return str(folder / "rows.parquet")


@pytest.mark.parametrize("form", ["dataset", "saved", "parquet"])
def test_features_survive_a_run_and_a_retry(rows, tmp_path, form):
    source = given(form, rows, tmp_path)
    assert run(tmp_path, source).dead == 1
    for dead in (1, 0):
        files = [str(path) for path in (tmp_path / "out").glob("part-*")]
        loaded = datasets.load_dataset(
            "parquet", data_files=files, split="train", cache_dir=str(tmp_path / f"cache{dead}")
        )
        assert len(loaded) == 3 - dead
        assert loaded.features == {
            **{name: rows.features[name] for name in ("text", "kind")},
            "input_length": KINDS,
            "picture": rows.features["picture"],
            "plain": rows.features["plain"],
            "again": datasets.Value("string"),
            "length": datasets.Value("int32"),
        }
        assert loaded[0]["picture"].getpixel((0, 0)) == (200, 0, 0)
        notes = json.loads(pq.read_schema(files[0]).metadata[b"huggingface"])
        assert set(notes["info"]["features"]) == set(loaded.column_names)
        assert pipemill.verify(str(tmp_path / "out")).ok
        if dead:
            run(tmp_path, source, pipemill.retry, parameters={"healed": 3})


def test_parts_of_an_older_plan_have_no_features_and_are_right(rows, tmp_path):
    from pipemill.jobs.output.ledger import Ledger

    source = given("parquet", rows, tmp_path)
    run(tmp_path, source, rows_per_part=1)
    ledger = Ledger(Store(str(tmp_path / "out")))
    plan = ledger.read_plan()
    plan.schema = plan.schema.remove_metadata()
    ledger.write_plan(plan)
    parts = sorted(ledger.parts())
    ledger.remove(parts[0])
    run(tmp_path, source, rows_per_part=1)
    told = [pq.read_schema(tmp_path / "out" / part).metadata for part in parts]
    assert [b"huggingface" in (notes or {}) for notes in told] == [False, True, True]
    assert pipemill.verify(str(tmp_path / "out")).ok


def test_files_that_do_not_agree_tell_nothing_of_that_column():
    def schema(**features):
        features = datasets.Features(features)
        return features.arrow_schema

    one = schema(a=KINDS, b=KINDS)
    other = schema(a=KINDS, b=datasets.Value("int64"), c=datasets.Value("string"))
    assert list(find_common_features([one, other])) == ["a", "c"]
    assert list(find_common_features([one, pa.schema([("a", pa.int64())])])) == ["b"]
    assert find_common_features([pa.schema([("a", pa.int64())])]) == {}
    broken = pa.schema([("a", pa.int64())], metadata={"huggingface": "{"})
    assert find_common_features([broken]) == {}


def test_result_columns_have_the_features_that_datasets_gives_their_types():
    columns = {
        "text": pa.string(),
        "vector": pa.list_(pa.float32(), 3),
        "items": pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())])),
        "at": pa.timestamp("us", "UTC"),
        "when": pa.time64("us"),
        "day": pa.date32(),
        "price": pa.decimal128(10, 2),
        "long": pa.large_list(pa.bool_()),
        "data": pa.large_binary(),
    }
    schema = pa.schema(list(columns.items()))
    told = json.loads(make_metadata(schema, {"x": {}})[b"huggingface"])["info"]["features"]
    expected = datasets.Features.from_arrow_schema(schema)
    assert told == expected.to_dict()
    old = {"text": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}}
    assert json.loads(make_metadata(schema, old)[b"huggingface"])["info"]["features"] == old
