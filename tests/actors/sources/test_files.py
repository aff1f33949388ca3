"""Folders of media: a row per file, in bundles."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.reading import Reading
from pipemill.jobs.config.load import build_job
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import InputFile, list_files
from pipemill.jobs.prepare import prepare

import pipemill
from pipemill.errors import ConfigError
from tests.support.splits import plan, read, rows


@pytest.fixture
def photos(tmp_path):
    """30 files of 0 to 29 bytes, in two folders, in the order of their names."""
    for i in range(30):
        path = tmp_path / f"in/{'ab'[i // 15]}/{i:03}.{['jpg', 'PNG', 'jpeg'][i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([i]) * i)
    return tmp_path / "in"


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 100 * 2**20), min_size=1, max_size=300),
    step=st.none() | st.integers(1, 100),
    limit=st.none() | st.integers(1, 400),
)
def test_bundles_hold_every_file_once_in_order(sizes, step, limit):
    files = [InputFile(f"{i}.jpg", size, "1") for i, size in enumerate(sizes)]
    source = open_source("files", {})
    made = Plan("files", source.infer_schema(files))
    made.add(source.plan_splits(files, step, limit))
    assert list(made.files()) == files[:limit]
    assert Plan.from_bytes(made.to_bytes()) == made
    for split in made.splits:
        assert split.rows == len(split.bundle) <= (step or 1024)
        assert step or split.rows == 1 or split.size <= 64 * 2**20
    if step:
        assert {split.rows for split in made.splits[:-1]} <= {step}


def test_a_million_files_are_a_thousand_splits_and_few_large_ones_many():
    cut = open_source("files", {}).plan_splits
    small = [InputFile(f"{i:07}.jpg", 20_000, "1") for i in range(100_000)]
    pieces = cut(small, None, None)
    assert 30 <= len(pieces) <= 200
    made = Plan("files", pa.schema([("path", pa.string())]))
    made.add(pieces)
    assert len(made.to_bytes()) < 2_000_000
    clips = [InputFile(f"{i}.mp4", 5 * 2**20, "1") for i in range(40)]
    assert len(cut(clips, None, None)) == 40
    assert [piece.rows for piece in cut(small[:100], None, None)] == [64, 36]


def test_the_rows_are_paths_and_bytes(photos):
    made = Plan.from_bytes(plan(photos, rows_per_part=7).to_bytes())
    assert made.format == "files"
    got = rows(read(made))
    assert [Path(row["path"]).read_bytes() for row in got] == [bytes([i]) * i for i in range(30)]
    assert [row["bytes"] for row in got] == [bytes([i]) * i for i in range(30)]
    assert read(made)[0].rows.schema.types == [pa.string(), pa.large_binary()]
    assert [row["bytes"] for row in rows(read(plan(f"{photos}/*/*.jpg")))] == [
        bytes([i]) * i for i in range(0, 30, 3)
    ]
    some = [str(photos / "b/017.jpeg"), str(photos / "a/003.jpg")]
    assert [row["path"] for row in rows(read(plan(some)))] == some


def test_bytes_are_read_only_where_they_are_wanted(photos):
    made = plan(photos, rows_per_part=30)
    (photos / "a/003.jpg").unlink()
    source = open_source("files", {}, pa.schema([made.schema.field("path")]))
    batch = source.read(made.splits[0])
    assert (batch.rows.num_rows, batch.rows.schema.names, batch.failures) == (30, ["path"], {})


def test_files_that_are_gone_or_grew_die_alone(photos):
    made = plan(photos, rows_per_part=10)
    (photos / "a/003.jpg").unlink()
    (photos / "b/025.PNG").write_bytes(b"longer than it was when the plan was made")
    first, second, third = read(made)
    assert [list(batch.failures) for batch in (first, second, third)] == [[3], [], [5]]
    assert (first.failures[3].stage, first.failures[3].error) == ("read", "FileNotFoundError")
    assert "but had 25 when planned" in third.failures[5].message
    row = first.rows.to_pylist()[3]
    assert (row["path"], row["bytes"]) == (str(photos / "a/003.jpg"), None)


def test_new_files_are_new_bundles_and_a_changed_one_is_named(photos):
    made = plan(photos)
    before = [split.part for split in made.splits]
    (photos / "a/a-new.jpg").write_bytes(b"new")
    files = list_files(str(photos), "auto", {}, None)[0]
    new = made.new_files(files)
    assert [Path(file.path).name for file in new] == ["a-new.jpg"]
    made.add(open_source("files", {}).plan_splits(new, None, None))
    assert [split.part for split in made.splits][:-1] == before
    assert rows(read(made))[-1]["bytes"] == b"new"
    (photos / "b/020.jpeg").write_bytes(b"?")
    with pytest.raises(ConfigError, match=r"020\.jpeg has changed"):
        made.new_files(list_files(str(photos), "auto", {}, None)[0])


def test_what_a_folder_is_taken_for(photos, tmp_path):
    def formats(path=photos, format="auto"):
        files, found, _ = list_files(str(path), format, {}, None)
        return found, len(files)

    assert formats() == ("files", 30)
    (photos / "notes.md").write_text("left out: no media file")
    assert formats() == ("files", 30)
    assert formats(format="files") == ("files", 31)
    # What a table may refer to is not its own row.
    pq.write_table(pa.table({"image": ["a/000.jpg"]}), photos / "index.parquet")
    assert formats() == ("parquet", 1)
    assert formats(photos / "a") == ("files", 15)
    # But what is named is never left out.
    with pytest.raises(ConfigError, match=r"mixes formats \(files, parquet\)"):
        list_files([str(photos / "index.parquet"), str(photos / "a/000.jpg")], "auto", {}, None)
    (photos / "index.parquet").rename(photos / "captions.txt")
    with pytest.raises(ConfigError, match=r"mixes formats \(files, text\)"):
        formats()
    found = list_files(str(photos), "auto", {}, None, companion="files")
    assert (found.format, len(found.files)) == ("files", 30)
    (tmp_path / "x.dat").write_bytes(b"?")
    with pytest.raises(ConfigError, match=r"set input\.format to one of parquet, .*files"):
        formats(tmp_path / "x.dat")
    assert formats(tmp_path / "x.dat", "files") == ("files", 1)


def test_a_job_keeps_the_path_and_not_the_file(models, photos, tmp_path):
    def job(output, **more):
        return pipemill.Job(
            task="text-classification",
            model=models["text-classification"],
            input={"path": str(photos), "columns": {"text": "path"}},
            output={"path": str(tmp_path / output), "rows_per_part": 8, **more},
            actors={"placement": "local"},
        )

    report = pipemill.run(job("out"))
    assert (report.rows, report.done, report.splits) == (30, 30, 4)
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.schema.names == ["path", "label", "score"]
    assert [Path(path).stem for path in table["path"].to_pylist()] == [f"{i:03}" for i in range(30)]
    assert pipemill.run(job("out")).added["rows"] == 0
    (photos / "b/0.gif").write_bytes(b"new")
    assert pipemill.run(job("out")).added == {"rows": 1, "done": 1, "dead": 0, "splits": 1}
    prepared = prepare(job("kept", keep=["bytes", "path"]))
    pickle.dumps(prepared.source)  # it travels to workers
    (photos / "a/004.PNG").unlink()  # after the plan was made
    split = prepared.plan.splits[0]
    batch = prepared.source.read(split)
    batch.results = pa.table({"label": ["x"] * 8})
    prepared.sink.write(split, batch)
    part = pq.read_table(tmp_path / "kept" / split.part)
    assert [len(data) for data in part["bytes"].to_pylist()] == [0, 1, 2, 3, 5, 6, 7]
    prepared.sink.keep.remove("bytes")
    prepared.sink.write(split, batch)
    letters = pq.read_table(tmp_path / "kept/_pipemill/dead-letter" / split.part)
    assert letters.schema.names[:3] == ["path", "split", "row"]
    assert letters["path"].to_pylist() == [str(photos / "a/004.PNG")]


def test_files_in_other_filesystems_and_formats_that_there_are_not():
    import fsspec

    memory = fsspec.filesystem("memory")
    for i in range(3):
        memory.pipe_file(f"/pictures/{i}.png", bytes([i]))
    got = rows(read(plan("memory://pictures")))
    assert [row["bytes"] for row in got] == [b"\0", b"\1", b"\2"]
    assert got[2]["path"] == "memory:///pictures/2.png"
    wrong = {"task": "t", "model": "m", "output": "o", "input": {"path": "i", "format": "photos"}}
    with pytest.raises(ConfigError, match=r"'input\.format'.*parquet.*, webdataset, .*'photos'"):
        build_job(None, [], {}, wrong)


@pytest.mark.parametrize(
    ("kind", "suffixes"),
    [
        ("image", "jfif JPE jp2 avif heic ppm"),
        ("audio", "oga aif aiff wma amr w64"),
        ("video", "mpg mpeg wmv 3gp ogv"),
    ],
)
def test_files_of_less_common_suffixes_are_rows_too(tmp_path, kind, suffixes):
    for suffix in suffixes.split():
        (tmp_path / f"a.{suffix}").write_bytes(b"x")
    made = plan(tmp_path)
    assert [Path(row["path"]).suffix[1:] for row in rows(read(made))] == sorted(suffixes.split())
    assert made.schema.field("bytes").metadata[b"kinds"] == kind.encode()


def test_threads_that_read_one_tar_get_their_own_bytes(tmp_path):
    """Its files share one place in it, and 16 of them are read at once."""
    contents = [bytes([i % 256]) * (2000 + 37 * i) for i in range(800)]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, content in enumerate(contents):
            member = tarfile.TarInfo(f"{i:04}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    batches = read(plan(f"tar://*.jpg::{tmp_path}/a.tar"))
    assert [row["bytes"] == contents[i] for i, row in enumerate(rows(batches))] == [True] * 800


def test_rows_are_not_blamed_where_every_file_is_refused(photos, monkeypatch):
    """As when credentials expire: the split is left for the next run."""
    made, read_file = plan(photos), LocalFileSystem.cat_file
    refused = {"003.jpg"}

    def cat_file(files, path, *range, **options):
        if not refused or Path(path).name in refused:
            raise PermissionError("The provided token has expired.")
        return read_file(files, path, *range, **options)

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)
    (batch,) = read(made)
    assert [failure.error for failure in batch.failures.values()] == ["PermissionError"]
    refused.clear()
    with pytest.raises(PermissionError, match="token has expired"):
        read(made)


def test_whole_files_are_texts_where_the_task_reads_one(tmp_path):
    wanted = {"a.txt": "one\ntwo", "b.md": "drei é", "c.txt": "", "d.txt": None}
    for name, text in wanted.items():
        data = b"\xff" if text is None else text.encode("utf-8-sig" if name == "b.md" else "utf-8")
        (tmp_path / name).write_bytes(data)
    reading = Reading(kinds={"bytes": "text"})
    made = plan(tmp_path, format="files", reading=reading)
    (batch,) = read(made, reading)
    assert [row["bytes"] for row in batch.rows.to_pylist()] == list(wanted.values())
    assert list(batch.failures) == [3]
    assert "UTF-8" in batch.failures[3].message
