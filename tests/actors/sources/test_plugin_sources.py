"""Formats that other packages bring."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pipemill.actors.sources import registry
from pipemill.jobs.config.load import build_job

import pipemill
from tests.support import light

ROOT = Path(__file__).parent.parent.parent.parent

# What such a package holds, beside its pyproject.toml: files of paragraphs, a row each.
PACKAGE = '''
from dataclasses import dataclass

import pyarrow as pa
from pipemill.actors.batch import Batch
from pipemill.actors.sources.base import FileSource
from pipemill.actors.sources.split_ranges import SplitRange
from pipemill.actors.storage.filesystem import open_filesystem


@dataclass
class Paragraphs(FileSource):
    """One column, text: a paragraph."""

    name = "paragraphs"
    suffixes = (".para",)

    def infer_schema(self, files):
        return pa.schema([("text", pa.string())])

    def plan_splits(self, files, rows_per_part, limit):
        ranges = []
        for file in files:
            count = len(self._paragraphs(file.path))
            count = count if limit is None else min(count, limit)
            limit = None if limit is None else limit - count
            step = rows_per_part or 1000
            for start in range(0, count, step):
                stop = min(start + step, count)
                ranges.append(SplitRange(file, start, stop, stop - start))
        return ranges

    def read(self, split):
        texts = self._paragraphs(split.path)[split.start : split.stop]
        batch = Batch(pa.table({"text": pa.array(texts, "string")}).select(self.schema.names))
        for row, text in enumerate(texts):
            if "[illegible]" in text:
                batch.add_failure("read", row, ValueError(f"paragraph {row + 1} is illegible"))
        return batch

    def _paragraphs(self, path):
        filesystem, inner = open_filesystem(path, self.options)
        return filesystem.cat_file(inner).decode().strip().split("\\n\\n")


class Misnamed(Paragraphs):
    name = "paragraph"


class Unrelated:
    name = "unrelated"
'''
ENTRY_POINTS = """[pipemill.sources]
paragraphs = mill_formats:Paragraphs
misnamed = mill_formats:Misnamed
unrelated = mill_formats:Unrelated
missing = mill_nowhere:Source
"""


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """A folder as pip leaves it in site-packages."""
    site = tmp_path / "site"
    info = site / "mill_formats-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "mill_formats.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mill-formats\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "mill_formats", raising=False)
    registry.clear_cache()
    yield site
    registry.clear_cache()


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.para").write_text("one two\n\nthree\n\n[illegible]\n\nfour five six\n")
    (tmp_path / "in/b.para").write_text("seven\n")
    return str(tmp_path / "in")


@pytest.mark.parametrize("format", ["auto", "paragraphs"])
def test_a_format_of_another_package(texts, tmp_path, monkeypatch, format):
    light.install(monkeypatch)
    job = light.job(tmp_path, [])
    given = {"path": texts, "format": format}
    output = {"path": str(tmp_path / "out"), "rows_per_part": 2, "max_errors": None}
    report = pipemill.run(**{**job, "input": given, "output": output})
    assert (report.rows, report.dead, report.splits) == (5, 1, 3)
    rows = ds.dataset(tmp_path / "out").to_table().to_pylist()
    assert [row["text"] for row in rows] == ["one two", "three", "four five six", "seven"]
    (letter,) = ds.dataset(tmp_path / "out/_pipemill/dead-letter").to_table().to_pylist()
    assert letter["message"] == "paragraph 1 is illegible"
    again = pipemill.run(**{**job, "input": given, "output": output})
    assert again.added["rows"] == 0
    (tmp_path / "in/c.para").write_text("eight nine")
    assert pipemill.run(**{**job, "input": given, "output": output}).added["rows"] == 1


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("paragrahs", "no such format; did you mean 'paragraphs'"),
        ("jsonlines", "no such format; did you mean 'jsonl'"),
        ("misnamed", "format 'misnamed' of mill_formats:Misnamed .*its name is 'paragraph'"),
        ("unrelated", "format 'unrelated' .*not a subclass of .*base.FileSource"),
        ("missing", "format 'missing' .*No module named 'mill_nowhere'"),
    ],
)
def test_a_mistake_in_it_or_with_it_is_one_message(texts, tmp_path, monkeypatch, format, message):
    light.install(monkeypatch)
    job = light.job(tmp_path, [])
    with pytest.raises(pipemill.ConfigError, match=message):
        pipemill.run(**{**job, "input": {"path": texts, "format": format}})


def test_what_is_built_in_comes_first(package):
    points = package / "mill_formats-1.0.dist-info/entry_points.txt"
    points.write_text("[pipemill.sources]\ncsv = mill_formats:Paragraphs\n")
    assert registry.format_names().count("csv") == 1
    assert registry.find_source("csv").__module__ == "pipemill.actors.sources.csv"
    assert registry.format_of("a.csv") == "csv"


def test_each_source_has_the_name_that_it_is_registered_by():
    for name in registry._SOURCES:
        assert registry.find_source(name).name == name
    suffixes = [s for source in registry.list_sources().values() for s in source.suffixes]
    assert len(suffixes) == len(set(suffixes))


def test_a_config_names_a_format_without_importing_its_source(package):
    assert build_job(None, [], {}, job("paragraphs")).input.format == "paragraphs"
    code = (
        "import sys\n"
        "from pipemill.jobs.config.load import build_job\n"
        f"print(build_job(None, [], {{}}, {job('paragraphs')!r}).input.format)\n"
        "print({'mill_formats', 'torch', 'datasets', 'ray'} & set(sys.modules))"
    )
    paths = os.pathsep.join([str(package), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == ["paragraphs", "set()"]


def job(format):
    paths = {"model": "m", "output": "o", "input": {"path": "i", "format": format}}
    return {"task": "text-classification", **paths}


def test_a_source_without_reader_can_not_be_made():
    class Unfinished(registry.find_source("csv").__base__):
        name = "unfinished"

        def read(self, split):
            return pa.table({})

    with pytest.raises(TypeError, match="infer_schema"):
        Unfinished({})
