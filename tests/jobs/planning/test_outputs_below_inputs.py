"""Outputs of pipemill below an input folder: they hold the input's rows once more."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pipemill.jobs.planning.find_inputs import list_files

import pipemill
from pipemill.errors import ConfigError
from tests.support import light


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two rows in a file, and an output of them."""
    light.install(monkeypatch)
    wanted = light.job(tmp_path, ["unused"])
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "in/rows.parquet")
    output = {**wanted["output"], "path": str(tmp_path / "in/first/out")}
    pipemill.run({**wanted, "input": str(tmp_path / "in"), "output": output})
    return tmp_path / "in"


def again(tmp_path, given, **more):
    return pipemill.run({**light.job(tmp_path, ["unused"]), "input": given, **more})


@pytest.mark.parametrize("given", ["in", "in/**/*.parquet", "in/*"])
def test_they_are_not_read_beside_other_files_and_the_run_says_so(folder, tmp_path, given):
    report = again(tmp_path, str(tmp_path / given))
    assert report.rows == 2
    (note,) = report.notes
    assert note.startswith(f"not read: {folder}/first/out, an output of pipemill below the input")
    assert pipemill.preview({**light.job(tmp_path, []), "input": str(tmp_path / given)}).rows == 2


def test_where_all_files_are_theirs_or_they_are_named_they_are_read(folder, tmp_path):
    parts = str(folder / "first/out")
    for number, given in enumerate([parts, f"{parts}/*.parquet", [str(folder), parts]]):
        output = {"path": str(tmp_path / f"out{number}")}
        report = again(tmp_path, given, output=output)
        assert report.rows == (4 if isinstance(given, list) else 2)
    (folder / "rows.parquet").unlink()
    assert again(tmp_path, str(folder)).rows == 2


def test_pictures_are_read_and_not_the_output_beside_them(folder):
    (folder / "rows.parquet").unlink()
    Image.new("RGB", (2, 2)).save(folder / "a.png")
    files, format, _ = list_files(str(folder), "auto", {}, None)
    assert ([file.path for file in files], format) == ([str(folder / "a.png")], "files")


def test_of_texts_and_an_output_one_must_be_named(folder):
    (folder / "rows.parquet").unlink()
    (folder / "notes.txt").write_text("a\n")
    with pytest.raises(ConfigError, match=r"in holds text files \(.*notes.txt\) and an output of"):
        list_files(str(folder), "auto", {}, None)
    assert len(list_files(str(folder), "text", {}, None)[0]) == 1


def test_what_an_output_was_planned_for_stays_its_input(folder, tmp_path):
    state = folder / "first/out/_pipemill"
    shutil.move(state, tmp_path / "aside")  # as if pipemill did not look for it
    assert again(tmp_path, str(folder)).rows == 4
    shutil.move(tmp_path / "aside", state)
    report = again(tmp_path, str(folder))
    assert (report.rows, report.added["rows"], report.notes) == (4, 0, ())
