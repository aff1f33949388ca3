"""Folders that `datasets` saved, and Arrow files and streams."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import list_files

from pipemill.errors import ConfigError
from tests.support.splits import FOLDER, plan, read, rows

datasets = pytest.importorskip("datasets")


def table(count, first=0):
    return pa.table({"n": range(first, first + count), "t": [f"é {i}" for i in range(count)]})


def write(path, content, batch, *, stream):
    kind = pa.ipc.new_stream if stream else pa.ipc.new_file
    with kind(str(path), content.schema) as writer:
        writer.write_table(content, max_chunksize=batch)


@FOLDER
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=3).filter(sum),
    batch=st.integers(1, 20),
    size=st.integers(1, 30),
    limit=st.none() | st.integers(1, 90),
    stream=st.booleans(),
)
def test_row_ranges_hold_every_row_once(tmp_path, counts, batch, size, limit, stream):
    for old in tmp_path.glob("*"):
        old.unlink()
    first = 0
    for number, count in enumerate(counts):
        write(tmp_path / f"{number}.arrow", table(count, first), batch, stream=stream)
        first += count
    made = Plan.from_bytes(plan(tmp_path, rows_per_part=size, limit=limit).to_bytes())
    batches = read(made)
    assert [row["n"] for row in rows(batches)] == list(range(min(first, limit or first)))
    assert all(1 <= b.rows.num_rows <= size for b in batches)


def test_a_saved_dataset_is_read_in_its_own_order(tmp_path):
    saved = datasets.Dataset.from_dict({"n": list(range(100)), "t": ["x"] * 100})
    saved.select(range(99, -1, -1)).save_to_disk(tmp_path / "saved", num_shards=3)
    made = plan(tmp_path / "saved", rows_per_part=30)
    assert made.format == "arrow"
    assert [row["n"] for row in rows(read(made))] == list(range(99, -1, -1))
    # The state's order counts, not that of the names.
    state = json.loads((tmp_path / "saved/state.json").read_text())
    state["_data_files"].reverse()
    (tmp_path / "saved/state.json").write_text(json.dumps(state))
    (tmp_path / "saved/data-of-old.arrow").write_bytes(b"not listed")
    assert next(iter(rows(read(plan(tmp_path / "saved")))))["n"] == 32
    assert len(rows(read(plan(f"file://{tmp_path}/saved")))) == 100


def test_images_are_structs_of_bytes_and_path(tmp_path):
    from PIL import Image

    for i in range(3):
        Image.new("RGB", (4, 4), (i * 50, 0, 0)).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    saved = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    saved.save_to_disk(tmp_path / "saved")
    made = plan(tmp_path / "saved")
    assert made.schema.field("image").type == pa.struct({"bytes": pa.binary(), "path": pa.string()})
    data = [row["image"]["bytes"] for row in rows(read(made))]
    assert data == [Path(path).read_bytes() for path in paths]


def test_arrays_of_datasets_are_plain_lists_here_and_on_a_worker(tmp_path):
    features = datasets.Features({"a": datasets.Array2D((2, 2), "float32")})
    values = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
    datasets.Dataset.from_dict({"a": values}, features=features).save_to_disk(tmp_path / "saved")
    made = plan(tmp_path / "saved")
    assert made.schema.field("a").type == pa.list_(pa.list_(pa.float32()))
    assert [row["a"] for row in rows(read(made))] == values


def test_what_can_not_be_read_right_is_refused(tmp_path):
    ones = datasets.Dataset.from_dict({"n": [1, 2]})
    datasets.DatasetDict(train=ones, test=ones).save_to_disk(tmp_path / "dict")
    with pytest.raises(ConfigError, match=r"dataset splits \(train, test\).*dict/train"):
        plan(tmp_path / "dict")
    assert len(rows(read(plan(tmp_path / "dict/test")))) == 2
    for above in (tmp_path, f"{tmp_path}/dict/t*"):
        with pytest.raises(ConfigError, match=r"that datasets saved \(.*/dict/test and 1 more\)"):
            plan(above)
    both = [f"{tmp_path}/dict/test", f"{tmp_path}/dict/train"]
    assert len(rows(read(plan(both)))) == 4
    state = tmp_path / "dict/train/state.json"
    whole = json.loads(state.read_text())
    for key in ("_indices_data_files", "_indices_files"):
        state.write_text(json.dumps({**whole, key: [{"filename": "i.arrow"}]}))
        with pytest.raises(ConfigError, match="in an indices file"):
            plan(tmp_path / "dict/train")
    state.write_text(json.dumps({**whole, "_data_files": [{"filename": "gone.arrow"}]}))
    with pytest.raises(ConfigError, match=r"gone\.arrow is missing, although"):
        plan(tmp_path / "dict/train")
    for broken in ("", "{", "{}", '{"_data_files": ["a.arrow"]}', '{"_data_files": [{"n": 1}]}'):
        state.write_text(broken)
        with pytest.raises(ConfigError, match=r"dict/train/state\.json is damaged, which lists"):
            plan(tmp_path / "dict/train")
    (tmp_path / "dict/dataset_dict.json").write_text('{"splits": null}')
    with pytest.raises(ConfigError, match=r"several dataset splits \(dataset_dict.json\): name"):
        plan(tmp_path / "dict")


def test_a_file_that_is_cut_off_is_an_error_not_fewer_rows(tmp_path):
    for stream in (True, False):
        write(tmp_path / "a.arrow", table(1000), 100, stream=stream)
        whole = (tmp_path / "a.arrow").read_bytes()
        made = plan(tmp_path, rows_per_part=100)
        (tmp_path / "a.arrow").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ConfigError, match=r"can't read .*a\.arrow as Arrow"):
            plan(tmp_path)
        with pytest.raises((ValueError, OSError)):
            read(made)


def test_a_stream_that_ends_between_two_batches_is_not_whole(tmp_path):
    sink = io.BytesIO()
    writer = pa.ipc.new_stream(sink, table(1).schema)
    writer.write_table(table(10), max_chunksize=5)
    (tmp_path / "b.arrow").write_bytes(sink.getvalue())  # never closed
    with pytest.raises(ConfigError, match=r"b\.arrow.*end"):
        plan(tmp_path)


def test_new_files_and_changed_ones(tmp_path):
    write(tmp_path / "a.arrow", table(3), 2, stream=True)
    made = plan(tmp_path)
    write(tmp_path / "b.arrow", table(3), 2, stream=True)
    files = list_files(str(tmp_path), "auto", {}, None)[0]
    assert [file.path for file in made.new_files(files)] == [str(tmp_path / "b.arrow")]
    write(tmp_path / "a.arrow", table(4), 2, stream=True)
    with pytest.raises(ConfigError, match=r"a\.arrow has changed"):
        made.new_files(list_files(str(tmp_path), "auto", {}, None)[0])


BAD = {"empty": b"", "html": b"<html><body>404</body></html>", "mark": b"ARROW1\0\0" + b"?" * 99}


def test_what_datasets_made_of_the_rows_is_not_read_beside_them(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    cache = {"cache_dir": str(tmp_path / "cache"), "split": "train"}
    loaded = datasets.load_dataset("json", data_files=str(tmp_path / "in.jsonl"), **cache)
    loaded.map(lambda row: {"n": row["n"] + 10})
    loaded.filter(lambda row: row["n"] > 1)
    files, _, notes = list_files(str(tmp_path / "cache"), "auto", {}, None)
    assert [Path(file.path).name for file in files] == ["json-train.arrow"]
    (note,) = notes
    assert "and 1 more, which datasets made" in note
    made = note.removeprefix("not read: ").partition(" and ")[0]
    assert len(list_files(made, "auto", {}, None).files) == 1


@pytest.mark.parametrize("bad", [*BAD, "half", "twice", "unfinished"])
def test_a_file_that_is_no_arrow_is_one_dead_row_beside_others(tmp_path, bad):
    for name in "abc":
        write(tmp_path / f"{name}.arrow", table(40), 10, stream=name != "b")
    data = (tmp_path / "b.arrow").read_bytes()
    if bad == "twice":
        twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
        write(tmp_path / "b.arrow", twice, 1, stream=True)
    elif bad == "unfinished":
        (tmp_path / "b.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-8])
    else:
        (tmp_path / "b.arrow").write_bytes(BAD.get(bad, data[: len(data) // 2]))
    made = plan(tmp_path, rows_per_part=40)
    assert [split.rows for split in made.splits] == [40, None, 40]
    good, wrong, other = read(made)
    assert (good.rows, other.rows) == (table(40), table(40))
    assert wrong.rows.to_pylist() == [{"n": None, "t": None}]
    assert f"can't read {tmp_path}/b.arrow as Arrow" in wrong.failures[0].message
    assert len(rows(read(plan(tmp_path, limit=41)))) == 41
    assert len(read(plan(tmp_path, limit=40))) == 1
    (tmp_path / "b.arrow").write_bytes(data)
    with pytest.raises(ValueError, match="now it can"):
        read(made)
    for name in "abc":
        (tmp_path / f"{name}.arrow").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"can't read .*a\.arrow as Arrow"):
        plan(tmp_path)


def test_rows_of_a_damaged_record_batch_die_and_the_others_are_read(tmp_path):
    tables = [pa.table({"t": texts}) for texts in (["aaaa", "bbbb"], ["cccc", "dddd"])]
    write(tmp_path / "a.arrow", pa.concat_tables(tables), 2, stream=True)
    data = (tmp_path / "a.arrow").read_bytes()
    place = data.rindex(bytes([0, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0]))  # where each text begins
    (tmp_path / "a.arrow").write_bytes(data[:place] + b"\xff\xfe" + data[place + 2 :])
    (batch,) = read(plan(tmp_path))
    assert batch.rows["t"].to_pylist() == ["aaaa", "bbbb", None, None]
    assert sorted(batch.failures) == [2, 3]
    assert "record batch is damaged" in batch.failures[2].message


def test_arrow_files_whose_columns_and_types_differ_are_read_as_one(tmp_path):
    coded = pa.array(["x", "y"]).dictionary_encode()
    write(tmp_path / "a.arrow", pa.table({"t": coded, "n": [1, 2**60]}), 1, stream=True)
    more = pa.table({"m": [True], "t": ["z"], "n": [0.5]})
    write(tmp_path / "b.arrow", more, 1, stream=False)
    batches = read(plan(tmp_path))
    assert {batch.rows.schema for batch in batches} == {
        pa.schema([("t", pa.string()), ("n", pa.string()), ("m", pa.bool_())])
    }
    assert rows(batches) == [
        {"t": "x", "n": "1", "m": None},
        {"t": "y", "n": str(2**60), "m": None},
        {"t": "z", "n": "0.5", "m": True},
    ]


@pytest.mark.parametrize("inner", [pa.int64(), pa.float64(), pa.bool_(), pa.string()])
def test_categories_in_lists_and_structs_are_read(tmp_path, inner):
    """Arrow encodes texts anew, but no numbers."""
    coded = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None], pa.int8()), pa.array([1, 0]).cast(inner)
    )
    lists = pa.ListArray.from_arrays([0, 2, 3, 3], coded)
    structs = pa.StructArray.from_arrays([coded], ["x"])
    written = pa.table({"coded": coded, "lists": lists, "structs": structs})
    write(tmp_path / "a.arrow", written, 3, stream=False)
    batches = read(plan(tmp_path))
    assert not any(batch.failures for batch in batches)
    assert rows(batches) == written.to_pylist()


def test_categories_of_numbers_may_have_a_null_entry(tmp_path):
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array([7, None]))
    write(tmp_path / "a.arrow", pa.table({"c": coded}), 2, stream=False)
    batches = read(plan(tmp_path))
    assert [row["c"] for row in rows(batches)] == [7, None]


@pytest.mark.parametrize("suffix", ["feather", "ipc", "arrows"])
def test_other_suffixes_of_arrow_are_known(tmp_path, suffix):
    write(tmp_path / f"a.{suffix}", table(3), 2, stream=suffix == "arrows")
    assert [row["n"] for row in rows(read(plan(tmp_path)))] == [0, 1, 2]


def test_feather_of_version_1_is_said(tmp_path):
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(200) + b"FEA1")
    with pytest.raises(ConfigError, match=r"a\.feather as Arrow: it is Feather of version 1"):
        plan(tmp_path)
