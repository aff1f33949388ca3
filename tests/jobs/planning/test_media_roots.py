"""Below which folders and URLs a row may name its media."""

from __future__ import annotations

import os
import shutil
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers
from PIL import Image
from pipemill.actors.storage import backoff
from pipemill.actors.storage.input_file import InputFile
from pipemill.jobs.config.job import InputSection
from pipemill.jobs.planning.media_roots import find_media_roots, make_media_access
from pipemill.pipelines.media import remote_files

import pipemill
from pipemill.errors import ConfigError


def roots(path, **more):
    return find_media_roots(InputSection(path=path, **more))


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("TMP", "TMP"),
        ("TMP/rows.parquet", "TMP"),
        ("TMP/part-*.parquet", "TMP"),
        ("TMP/pictures/*/*.jpg", "TMP/pictures"),
        ("TMP/pic*/rows.parquet", "TMP"),
        ("s3://bucket/a/rows.parquet", "s3://bucket/a"),
        ("s3://bucket/a/", "s3://bucket/a/"),
        ("s3://bucket/*.parquet", "s3://bucket"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a::b/", "s3://bucket/a::b/"),
        ("s3://bucket/a::b/c.parquet", "s3://bucket/a::b"),
    ],
)
def test_without_a_word_they_are_the_folders_of_the_input(tmp_path, path, root):
    here = str(tmp_path)
    assert roots(path.replace("TMP", here)) == (root.replace("TMP", here),)


@pytest.mark.parametrize("path", ["zip://a/*.parquet::/tmp/x.zip", "s3://*/x"])
def test_there_may_be_none(path):
    assert roots(path) == ()
    assert make_media_access(InputSection(path=path)).roots == ()


def test_several_inputs_and_named_roots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert roots(["a.parquet", "b.parquet"]) == (str(tmp_path),)
    named = roots("a.parquet", media_roots=["pictures", "https://host/pics/"])
    assert named == (os.path.join(tmp_path, "pictures"), "https://host/pics/")
    assert roots("a.parquet", media_roots=[]) == ()


def test_rows_read_below_them_only(tmp_path):
    from pipemill.pipelines.media.access import MediaAccess

    (tmp_path / "in").mkdir()
    (tmp_path / "in/inside.bin").write_bytes(b"inside")
    (tmp_path / "outside.bin").write_bytes(b"outside")
    access = make_media_access(InputSection(path=str(tmp_path / "in/rows.parquet")))
    assert isinstance(access, MediaAccess)
    assert access.fetch(str(tmp_path / "in/inside.bin")) == b"inside"
    with pytest.raises(PermissionError, match="media_roots"):
        access.fetch(str(tmp_path / "in/../outside.bin"))


def test_a_relative_path_begins_in_the_folder_of_the_rows(tmp_path):
    def access(*names, path=str(tmp_path)):
        files = [InputFile(str(tmp_path / name), 1, "1") for name in names]
        return make_media_access(InputSection(path=path), files)

    for folder in ("", "a/", "b/"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "0.png").write_bytes(f"of {folder}".encode())
    rows = access("a/metadata.jsonl", "a/more.jsonl")
    assert (rows.fetch("0.png"), rows.fetch("b/0.png")) == (b"of a/", b"of b/")
    # Rows of several folders do not tell which is theirs.
    assert access("a/metadata.jsonl", "b/metadata.jsonl").roots == (str(tmp_path),)
    assert access("0.jsonl").roots == (str(tmp_path),)
    # A file that is read from elsewhere opens no folder.
    assert access("a/0.jsonl", path=str(tmp_path / "b")).roots == (str(tmp_path / "b"),)
    files = [InputFile(str(tmp_path / "a/0.jsonl"), 1, "1")]
    named = InputSection(path=str(tmp_path), media_roots=[str(tmp_path / "b")])
    assert make_media_access(named, files).roots == (str(tmp_path / "b"),)


def test_a_root_that_is_none_is_a_message():
    with pytest.raises(ConfigError, match=r"input\.media_roots"):
        make_media_access(InputSection(path="rows.parquet", media_roots=["https://"]))


def test_each_row_begins_in_the_folder_of_its_own_file(models, tmp_path):
    """The layout of an imagefolder of `datasets`: train/metadata.csv, test/metadata.csv."""
    names = ["0.png", "1.png", "gone.png"]
    for number, folder in enumerate(("test", "train")):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "metadata.csv").write_text("\n".join(["file_name", *names]))
        for i in range(2):
            draw(tmp_path / "in" / folder / f"{i}.png", seed=2 * number + i)
    job = {
        "task": "image-classification",
        "model": models["image-classification"],
        "input": {"path": str(tmp_path / "in"), "columns": {"image": "file_name"}},
        "output": {"path": str(tmp_path / "out"), "max_errors": 0.9},
        "parameters": {"top_k": 1},
        "actors": {"placement": "local"},
    }
    plain = transformers.pipeline("image-classification", models["image-classification"])
    expected = [
        plain(str(tmp_path / "in" / folder / name), top_k=1)[0]["score"]
        for folder in ("test", "train")
        for name in names[:2]
    ]
    assert len({round(score, 4) for score in expected}) == 4
    shown = pipemill.preview(job, rows=6).table
    assert shown.column_names == ["file_name", "labels", "scores"]
    assert scores(shown) == pytest.approx(expected, abs=1e-4)
    assert pipemill.plan(job).rows == 6
    assert (report := pipemill.run(job)).dead == 2, report
    assert scores(pq.read_table(tmp_path / "out")) == pytest.approx(expected, abs=1e-4)
    letters = pq.read_table(tmp_path / "out/_pipemill/dead-letter")
    assert [name for name in letters.column_names if name.startswith("_")] == []
    assert pipemill.verify(str(tmp_path / "out"), sample=4).ok
    for folder in ("test", "train"):
        shutil.copy(tmp_path / "in" / folder / "1.png", tmp_path / "in" / folder / "gone.png")
    assert pipemill.retry(job).dead == 0
    expected = [expected[i] for i in (0, 1, 1, 2, 3, 3)]
    assert scores(pq.read_table(tmp_path / "out")) == pytest.approx(expected, abs=1e-4)


def draw(path, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def scores(table):
    return [value[0] for value in table["scores"].to_pylist() if value]


def test_a_server_that_is_away_leaves_the_splits_that_need_it_undone(models, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "_WAITS_S", ())
    monkeypatch.setattr(backoff, "WAITS_S", ())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{free.getsockname()[1]}"
    draw(tmp_path / "here.png", 0)
    urls = ["here.png"] * 8 + [f"{server}/a.png"] * 2 + ["here.png"] * 2
    pq.write_table(pa.table({"image": urls}), tmp_path / "in.parquet")
    job = {
        "task": "image-classification",
        "model": models["image-classification"],
        "input": {"path": str(tmp_path / "in.parquet"), "media_roots": [str(tmp_path), server]},
        "output": {"path": str(tmp_path / "out"), "rows_per_part": 2},
        "actors": {"placement": "local"},
    }
    with pytest.raises(pipemill.RunError, match=r"^5 of 6 splits(.|\n)*does not answer"):
        pipemill.run(job)
    found = pipemill.status(tmp_path / "out")
    assert (found.done, found.dead, found.left) == (10, 0, 2)
    job["input"]["media_roots"].pop()
    assert pipemill.run({**job, "output": {**job["output"], "max_errors": None}}).dead == 2
