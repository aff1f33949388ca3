"""Splits of a compressed file, of which each would be read from the file's start."""

from __future__ import annotations

import gzip
import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.streams import places
from pipemill.actors.sources.streams.line_files import LineFiles
from pipemill.actors.split import Split
from pipemill.actors.storage.listing import stat

ROWS = [{"text": f"row {number}" + "é" * (number % 7)} for number in range(1000)]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A source, and the splits of a file with blank lines and a bad one."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" * (1 + n % 3) for n, row in enumerate(ROWS)]
    lines[500] = "no JSON\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
    found = stat(str(tmp_path / "a.jsonl.gz"), {})
    source = open_source("jsonl", {})
    schema = source.infer_schema([found])
    pieces = source.plan_splits([found], 37, None)
    splits = [
        Split(n, found.path, found.size, found.version, p.start, p.stop, p.rows)
        for n, p in enumerate(pieces)
    ]
    assert len(splits) == 28
    monkeypatch.setattr(places, "_kept", [])
    return open_source("jsonl", {}, schema), splits


def read(source, split):
    batch = source.read(split)
    return batch.rows["text"].to_pylist(), {n: str(f) for n, f in batch.failures.items()}


def test_one_after_the_other_they_are_read_once(source, monkeypatch):
    opened, usual = [], LineFiles.open

    def note(files, path):
        opened.append(path)
        return usual(files, path)

    monkeypatch.setattr(LineFiles, "open", note)
    source, splits = source
    texts = [text for split in splits for text in read(source, split)[0]]
    assert texts[:500] + texts[501:] == [row["text"] for n, row in enumerate(ROWS) if n != 500]
    assert len(opened) == 1


@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_rows_and_errors_are_the_same(source, seed, monkeypatch):
    source, splits = source
    expected = []
    for split in splits:
        monkeypatch.setattr(places, "_kept", [])
        expected.append(read(source, split))
    assert "line " in next(iter(expected[500 // 37][1].values()))
    order = random.Random(seed).sample(range(len(splits)), len(splits))
    with ThreadPoolExecutor(5) as threads:
        found = dict(zip(order, threads.map(lambda n: read(source, splits[n]), order), strict=True))
    assert [found[n] for n in range(len(splits))] == expected
    assert len(places._kept) <= 4


def test_of_a_file_without_a_version_nothing_is_kept(source, tmp_path):
    source, splits = source
    first, second = (replace(split, version="") for split in splits[:2])
    before = read(source, second)
    read(source, first)
    changed = {"text": "another"}
    lines = [json.dumps(changed) + "\n" for _ in range(1000)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
    assert set(read(source, second)[0]) == {"another"} != set(before[0])
