"""Splits of a compressed file, of which each would be read from the file's start."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import zstandard
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.streams import kept_streams
from pipemill.actors.sources.streams.line_files import LineFiles
from pipemill.actors.split import Split
from pipemill.actors.storage import backoff
from pipemill.actors.storage.listing import stat
from pipemill.actors.storage.shared_archive import forget_archives

import pipemill
from tests.support import light

TEXTS = [f"row {number}" + "é" * (number % 7) for number in range(1000)]
BAD = 500
COMPRESS = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
FORMATS = {"jsonl": "jsonl", "csv": "csv", "tar": "webdataset"}
KINDS = ["jsonl.gz", "csv.gz", "csv.zst", "tar.gz", "tar.zst", "tar.bz2", "csv.xz"]
# In an archive, which may have no versions of its files.
IN_ARCHIVES = ["jsonl.zip", "csv.zip", "jsonl.gz.tar"]


def to_jsonl(texts) -> bytes:
    """Objects, with blank lines between them and a line that is none."""
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    lines[BAD] = "no JSON"
    return "".join(line + "\n" * (1 + n % 3) for n, line in enumerate(lines)).encode()


def to_csv(texts) -> bytes:
    """Records of several lines, blank lines between them, and a bare carriage return."""
    records = [f'{n},"{text}' + "\n" * (n % 3 == 1) + '"' for n, text in enumerate(texts)]
    records[BAD] = "a\rb,c"
    return "".join(
        ["n,text\n", *(one + "\n" * (1 + n % 3) for n, one in enumerate(records))]
    ).encode()


def to_tar(texts) -> bytes:
    """Samples of two members, folders and long names between them, and a text that is not UTF-8."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as made:
        for n, text in enumerate(texts):
            if n % 5 == 0:
                folder = tarfile.TarInfo(f"folder{n}" + "x" * (n % 200))
                folder.type = tarfile.DIRTYPE
                made.addfile(folder)
            key = f"{n:04}" + "y" * (n % 150)
            data = b"\xff" if n == BAD else text.encode()
            for name, content in ((f"{key}.txt", data), (f"{key}.cls", b"one")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return sink.getvalue()


MAKE = {"jsonl": to_jsonl, "csv": to_csv, "tar": to_tar}


def write(folder, kind, texts):
    format, *more = kind.split(".")
    path, data, url = folder / f"a.{kind}", MAKE[format](texts), str(folder / f"a.{kind}")
    new = path.with_name("new")
    if kind.endswith(".zip"):
        with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"b.{format}", data)
        url = f"zip://b.{format}::{path}"
    elif kind.endswith(".tar"):
        (packed := folder / "packed").write_bytes(COMPRESS[more[0]](data))
        with tarfile.open(new, "w") as archive:
            archive.add(packed, f"b.{format}.{more[0]}")
        url = f"tar://b.{format}.{more[0]}::{path}"
    else:
        new.write_bytes(COMPRESS[more[0]](data))
    os.replace(new, path)
    return stat(url, {}), FORMATS[format]


@pytest.fixture(params=[*KINDS, *IN_ARCHIVES])
def source(request, tmp_path, monkeypatch):
    """A source, and the splits of a file with a bad row."""
    found, format = write(tmp_path, request.param, TEXTS)
    source = open_source(format, {})
    schema = source.infer_schema([found])
    pieces = source.plan_splits([found], 37, None)
    splits = [
        Split(n, found.path, found.size, found.version, p.start, p.stop, p.rows)
        for n, p in enumerate(pieces)
    ]
    assert len(splits) == 28
    monkeypatch.setattr(kept_streams, "_kept", [])
    return open_source(format, {}, schema), splits


def read(source, split):
    batch = source.read(split)
    column = "text" if "text" in batch.rows.column_names else "txt"
    return batch.rows[column].to_pylist(), {n: str(f) for n, f in batch.failures.items()}


def test_one_after_the_other_they_are_read_once(source, monkeypatch):
    opened, usual = [], LineFiles.open

    def note(files, path):
        opened.append(path)
        return usual(files, path)

    monkeypatch.setattr(LineFiles, "open", note)
    source, splits = source
    texts = [text for split in splits for text in read(source, split)[0]]
    assert [text.rstrip("\n") for text in texts if text] == [*TEXTS[:BAD], *TEXTS[BAD + 1 :]]
    assert len(opened) == 1


@pytest.mark.parametrize("source", IN_ARCHIVES, indirect=True)
def test_of_an_archive_that_was_replaced_nothing_is_read_on(source, tmp_path):
    source, splits = source
    read(source, splits[0])
    kind = splits[0].path.partition("/a.")[2]
    write(tmp_path, kind, [text.replace("row", "cow") for text in TEXTS])
    forget_archives()
    found = [text.rstrip("\n") for text in read(source, splits[1])[0]]
    assert found == [text.replace("row", "cow") for text in TEXTS[37:74]]


@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_rows_and_errors_are_the_same(source, seed, monkeypatch):
    source, splits = source
    expected = []
    for split in splits:
        monkeypatch.setattr(kept_streams, "_kept", [])
        expected.append(read(source, split))
    assert len(expected[BAD // 37][1]) == 1
    order = random.Random(seed).sample(range(len(splits)), len(splits))
    with ThreadPoolExecutor(5) as threads:
        found = dict(zip(order, threads.map(lambda n: read(source, splits[n]), order), strict=True))
    assert [found[n] for n in range(len(splits))] == expected
    assert 0 < len(kept_streams._kept) <= 4


class Breaking:
    """A stream that breaks after some calls, as if a server had hung up."""

    def __init__(self, stream, calls):
        self._stream, self._left = stream, calls

    def _call(self, name, *given):
        self._left -= 1
        if self._left < 0:
            raise OSError("Socket is closed")
        return getattr(self._stream, name)(*given)

    def read(self, *given):
        return self._call("read", *given)

    def readline(self, *given):
        return self._call("readline", *given)

    def __getattr__(self, name):
        return getattr(self._stream, name)


@pytest.mark.parametrize("calls", [0, 2])
def test_a_kept_stream_that_breaks_is_no_fault_of_rows(source, calls, monkeypatch):
    source, splits = source
    expected = read(source, splits[8])
    monkeypatch.setattr(kept_streams, "_kept", [])
    monkeypatch.setattr(backoff, "WAITS_S", ())
    for number in (7, 4, 1):
        read(source, splits[number])
    assert len(kept_streams._kept) == 3
    for _, place in kept_streams._kept:
        place.stream = Breaking(place.stream, calls)
    assert read(source, splits[8]) == expected


@pytest.mark.parametrize("source", KINDS, indirect=True)
def test_of_a_file_without_a_version_nothing_is_kept(source, tmp_path):
    source, splits = source
    first, second = (replace(split, version="") for split in splits[:2])
    before = read(source, second)
    read(source, first)
    assert not kept_streams._kept
    kind = first.path.partition("/a.")[2]
    write(tmp_path, kind, [text.replace("row", "cow") for text in TEXTS])
    after = read(source, second)
    assert after[0] == [text.replace("row", "cow") for text in before[0]] != before[0]


def test_a_run_in_this_process_leaves_none_open(tmp_path, monkeypatch):
    light.install(monkeypatch)
    found, _ = write(tmp_path, "jsonl.gz", TEXTS)
    job = light.job(tmp_path, TEXTS, output={"rows_per_part": 300}, input=found.path)
    monkeypatch.setattr(kept_streams, "_kept", [])
    most, usual = [], kept_streams._keep

    def keep(file, place):
        usual(file, place)
        most.append(len(kept_streams._kept))

    monkeypatch.setattr(kept_streams, "_keep", keep)
    assert pipemill.run(**job).rows == len(TEXTS)
    assert most
    assert not kept_streams._kept


def test_few_streams_with_large_windows_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_streams, "_kept", [])
    options = zstandard.ZstdCompressionParameters(window_log=29, write_content_size=0)
    lines = to_jsonl(TEXTS)
    source, parts = open_source("jsonl", {}), []
    for number in range(4):
        path = tmp_path / f"{number}.jsonl.zst"
        frame = zstandard.ZstdCompressor(compression_params=options)
        large = frame.compressobj()
        path.write_bytes(large.compress(lines) + large.flush())
        found = stat(str(path), {})
        schema = source.infer_schema([found])
        piece = next(iter(source.plan_splits([found], 37, None)))
        parts.append(Split(number, found.path, found.size, found.version, piece.start, piece.stop))
    source = open_source("jsonl", {}, schema)
    for part in parts:
        assert len(read(source, part)[0]) == 37
    assert [place.position for _, place in kept_streams._kept] == [parts[0].stop] * 2
    monkeypatch.setattr(kept_streams, "_MOST_BYTES", 1)
    assert read(source, parts[0])[0] == TEXTS[:37]
    assert len(kept_streams._kept) == 1
