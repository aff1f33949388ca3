"""Files that are not what their name says, in other encodings, and JSON that is not JSON Lines."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import random
import re
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pipemill.actors.sources import byte_ranges
from pipemill.actors.sources.reading import Reading
from pipemill.actors.storage.shared_archive import forget_archives

from pipemill.errors import ConfigError
from tests.support.splits import FOLDER, plan, read, rows

FORMATS = {
    "csv": lambda *texts: "text\n" + "".join(f"{text}\n" for text in texts),
    "jsonl": lambda *texts: "".join(json.dumps({"text": text}) + "\n" for text in texts),
    "txt": lambda *texts: "".join(f"{text}\n" for text in texts),
}
PAGE = b"<!DOCTYPE html>\n<html>\n<body>not here</body>\n</html>\n"
GARBAGE = random.Random(0).randbytes(5000)
LARGE = random.Random(1).randbytes(3000).hex()
PACK = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
# Names and bytes of a bad file, and what is said of it, whatever the format is.
BAD = {
    "page.gz": (PAGE, "Not a gzipped file"),
    "page.zst": (PAGE, "not zstd"),
    "page.bz2": (PAGE, "not bzip2"),
    "page.xz": (PAGE, "not xz"),
    "cut off.bz2": ("bz2", "cut off"),
    "cut off.xz": ("xz", "cut off"),
    "cut off.gz": ("gz", "ended before the end"),
    "cut off.zst": ("zst", "cut off"),
    "damaged.gz": ("damage", "CRC check failed|invalid"),
    "garbage": (GARBAGE, "binary"),
    "wide": ("utf-16-le", "UTF-16 without a byte order mark"),
}


def bad_bytes(what, format):
    if isinstance(what, bytes):
        return what
    whole = FORMATS[format]("one", LARGE).encode()
    if what == "utf-16-le":
        return whole.decode().encode("utf-16-le")
    if what == "damage":
        packed = bytearray(gzip.compress(whole))
        packed[-8] ^= 255
        return bytes(packed)
    packed = PACK[what](whole)
    return packed[: len(packed) // 2]


def write(folder, name, data):
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("format", FORMATS)
def test_a_bad_file_is_one_dead_letter_beside_others(tmp_path, format, name, size):
    what, said = BAD[name]
    stem, _, packed = name.partition(".")
    bad = f"b {stem}.{format}" + (f".{packed}" if packed else "")
    write(tmp_path, bad, bad_bytes(what, format))
    with pytest.raises(ConfigError, match=rf"can't read .*{bad}.*({said})"):
        plan(tmp_path, size)
    write(tmp_path, f"a.{format}", FORMATS[format]("x", "y"))
    write(tmp_path, f"c.{format}", FORMATS[format]("z"))
    batches = read(plan(tmp_path, size))
    assert [row["text"] for row in rows(batches)] == ["x", "y", None, "z"]
    (failure,) = [failure for batch in batches for failure in batch.failures.values()]
    assert failure.stage == "read"
    assert f"can't read {tmp_path}/{bad} as " in failure.message


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_an_error_page_is_one_dead_letter(tmp_path, format, size):
    write(tmp_path, f"b.{format}", PAGE)
    with pytest.raises(ConfigError, match=rf"b\.{format}"):
        plan(tmp_path, size)
    for name in "ac":
        write(tmp_path, f"{name}.{format}", FORMATS[format](name))
    batches = read(plan(tmp_path, size))
    assert [row["text"] for row in rows(batches)] == ["a", None, "c"]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_no_bytes_has_no_rows(tmp_path, format, ending):
    write(tmp_path, f"a.{format}{ending}", b"")
    write(tmp_path, f"b.{format}", FORMATS[format]("x"))
    batches = read(plan(tmp_path))
    assert [row["text"] for row in rows(batches)] == ["x"]
    assert not any(batch.failures for batch in batches)


def test_a_header_that_shares_no_name_with_most_is_a_bad_file(tmp_path):
    for name in "abc":
        write(tmp_path, f"{name}.csv", f"text,n\n{name},1\n")
    write(tmp_path, "d.csv", "moved,away\n1,2\n3,4\n")
    for size in (None, 1):
        batches = read(plan(tmp_path, size))
        assert [row["text"] for row in rows(batches)] == ["a", "b", "c", None]
        assert "d.csv as CSV: its header (moved, away) lacks text, n" in (
            batches[-1].failures[0].message
        )
    write(tmp_path, "d.csv", "text,m\nd,2\n")
    with pytest.raises(ConfigError, match=r"d\.csv and .*a\.csv have different columns"):
        plan(tmp_path)
    write(tmp_path, "d.csv", '"text,n\nd,2\n')
    assert "its header: a quote opens in this row" in read(plan(tmp_path))[-1].failures[0].message
    write(tmp_path, "d.csv", '"text,n\nd\n')
    assert "header has a quote that is never closed" in read(plan(tmp_path))[-1].failures[0].message


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt", "parquet", "arrow"])
def test_a_damaged_file_of_an_archive_is_one_dead_letter_beside_others(tmp_path, suffix):
    rows_of_one = pa.table({"text": ["row " * 20]})
    if suffix == "parquet":
        pq.write_table(rows_of_one, sink := io.BytesIO(), compression="none")
        data = sink.getvalue()
    elif suffix == "arrow":
        with pa.ipc.new_file(sink := io.BytesIO(), rows_of_one.schema) as new:
            new.write_table(rows_of_one)
        data = sink.getvalue()
    else:
        data = FORMATS[suffix]("row " * 20).encode()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in "ab":
            archive.writestr(f"{name}.{suffix}", data)
    whole = (tmp_path / "a.zip").read_bytes()
    header = whole.rindex(b"PK\x03\x04")
    for place, why in ((whole.rindex(b"row row"), "Bad CRC-32"), (header, "Bad magic number")):
        packed = bytearray(whole)
        packed[place + 1] ^= 1
        (tmp_path / "a.zip").write_bytes(packed)
        forget_archives()
        good, *bad = read(plan(f"zip://*.{suffix}::{tmp_path}/a.zip"))
        assert good.rows["text"].to_pylist() == ["row " * 20]
        assert f"its archive is damaged: {why}" in bad[0].failures[0].message


def test_a_name_in_a_header_that_is_not_utf_8_is_no_other_name(tmp_path):
    write(tmp_path, "b.csv", "text,Größe\nb,2\n".encode("latin-1"))
    said = r"b\.csv as CSV: its header has the name b'Gr\\xf6\\xdfe', which is not UTF-8: name an"
    with pytest.raises(ConfigError, match=said):
        plan(tmp_path)
    reading = Reading(encoding="latin-1")
    assert rows(read(plan(tmp_path, reading=reading), reading)) == [{"text": "b", "Größe": "2"}]
    write(tmp_path, "a.csv", "text,Größe\na,1\n")
    for size in (None, 1):
        good, bad = read(plan(tmp_path, size))
        assert good.rows.to_pylist() == [{"text": "a", "Größe": "1"}]
        assert re.search(said, bad.failures[0].message)


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_mark_of_the_encoding_is_heeded(tmp_path, format, encoding, size):
    data = FORMATS[format]("é", "日本", "x").encode(encoding)
    if encoding == "utf-16-be":
        data = codecs.BOM_UTF16_BE + data
    write(tmp_path, f"a.{format}", data)
    write(tmp_path, f"b.{format}.gz", gzip.compress(data))
    write(tmp_path, f"c.{format}", FORMATS[format]("ö"))
    for reading in (None, Reading(encoding="utf-8")):
        batches = read(plan(tmp_path, size, reading=reading), reading)
        assert [row["text"] for row in rows(batches)] == ["é", "日本", "x"] * 2 + ["ö"]
        assert not any(batch.failures for batch in batches)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "shift_jis", "utf-16"])
@pytest.mark.parametrize("format", FORMATS)
def test_an_encoding_that_is_named(tmp_path, monkeypatch, format, encoding):
    texts = ["日本"] * 50 if encoding == "shift_jis" else ["é à"] * 50
    data = FORMATS[format](*texts)
    if format == "jsonl":
        data = data.encode().decode("unicode_escape")
    write(tmp_path, f"a.{format}", data.encode(encoding))
    write(tmp_path, f"b.{format}", codecs.BOM_UTF8 + FORMATS[format]("ü").encode())
    monkeypatch.setattr(byte_ranges, "LARGE_FILE", 100)
    monkeypatch.setattr("pipemill.actors.sources.split_ranges._FEWEST_ROWS", 7)
    reading = Reading(encoding=encoding)
    made = plan(tmp_path, reading=reading)
    assert len(made.splits) > 5
    batches = read(made, reading)
    assert [row["text"] for row in rows(batches)] == [*texts, "ü"]


def test_what_an_encoding_has_not_costs_its_row(tmp_path):
    write(tmp_path, "a.txt", b"one\n\x81\ntwo\n")
    reading = Reading(encoding="cp1252")
    (batch,) = read(plan(tmp_path, reading=reading), reading)
    assert batch.rows["text"].to_pylist() == ["one", None, "two"]
    assert "line 2 of" in batch.failures[1].message
    assert "another encoding in input.encoding" in batch.failures[1].message


def test_a_window_of_any_size_is_read(tmp_path):
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    pack = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    data = pack.compress(FORMATS["jsonl"](*["a"] * 50).encode()) + pack.flush()
    write(tmp_path, "a.jsonl.zst", data + zstandard.compress(FORMATS["jsonl"]("b").encode()))
    assert [row["text"] for row in rows(read(plan(tmp_path)))] == [*["a"] * 50, "b"]


VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a[]{}",: \n\\é'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@FOLDER
@given(
    st.lists(VALUES, min_size=1, max_size=20),
    st.sampled_from([None, 2]),
    st.sampled_from([None, 0, 2, "\t"]),
    st.sampled_from(["array", "objects"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
    st.integers(1, 9),
)
def test_json_documents_are_rows(
    tmp_path, values, indent, inner, layout, encoding, packed, read_size
):
    """Of any layout, read in bits of any size."""
    import pipemill.actors.sources.parsing.json_documents as documents

    for old in tmp_path.glob("*"):
        old.unlink()
    wanted = [{"text": "a", "v": value} for value in values]
    indent = inner if layout == "array" and indent is None else indent or 2
    if layout == "array":
        text = json.dumps(wanted, indent=indent, ensure_ascii=False)
    else:
        text = "\n".join(json.dumps(row, indent=2, ensure_ascii=False) for row in wanted)
    data = text.encode(encoding)
    name = "a.json.gz" if packed else "a.json"
    write(tmp_path, name, gzip.compress(data) if packed else data)
    usual, documents._READ = documents._READ, read_size
    try:
        batches = read(plan(tmp_path, 3))
    finally:
        documents._READ = usual
    found = rows(batches)
    assert [row["text"] for row in found] == ["a"] * len(wanted)
    assert not any(batch.failures for batch in batches)
    assert all(batch.rows.num_rows <= 3 for batch in batches)
    field = batches[0].rows.schema.field("v")
    if field.metadata:
        assert [None if row["v"] is None else json.loads(row["v"]) for row in found] == values


def test_json_that_is_no_document_is_a_bad_file(tmp_path):
    good = '[\n {"text": "a"},\n {"text": "b"}\n]\n'
    bad = {
        "cut.json": (good[:-3], "has no end"),
        "torn.json": (good[:-8], "is not JSON"),
        "wrong.json": (good.replace('"b"', "b"), "is not JSON: Expecting value at character 28"),
    }
    for name, (text, said) in bad.items():
        write(tmp_path, name, text)
        with pytest.raises(ConfigError, match=rf"can't read .*{name}: .*{said}"):
            plan(tmp_path / name)
    write(tmp_path, "a.json", good)
    batches = read(plan(tmp_path))
    assert [row["text"] for row in rows(batches)] == ["a", "b", None, None, None]
    messages = [batch.failures[0].message for batch in batches[1:]]
    assert ["no end" in messages[0], "is not JSON" in messages[1]] == [True, True]
    write(tmp_path, "numbers.json", "[1, 2, 3]\n")
    with pytest.raises(ConfigError, match=r"no JSON object with a key .*numbers\.json"):
        plan(tmp_path / "numbers.json")
    write(tmp_path, "empty.json", "[]\n")
    assert len(rows(read(plan([str(tmp_path / "a.json"), str(tmp_path / "empty.json")])))) == 2


@pytest.mark.parametrize(
    "text",
    [
        '{\n  "text": "a"\n}',
        '{ "n": 1\n, "text": "a"\n}\n',
        '{"n": [\n1], "text": "a"}\r\n',
        '\n\n{\r\n  "text": "a",\r\n  "l": "' + "x" * 200_000 + '"\r\n}',
    ],
)
def test_one_object_over_several_lines_is_a_row(tmp_path, text):
    (tmp_path / "a.json").write_text(text, newline="")
    assert [row["text"] for row in rows(read(plan(tmp_path)))] == ["a"]


def test_a_large_array_is_cut_into_splits(tmp_path, monkeypatch):
    monkeypatch.setattr(byte_ranges, "LARGE_FILE", 1000)
    wanted = [{"text": f"word {n}", "more": {"n": [n]}} for n in range(500)]
    write(tmp_path, "a.json", json.dumps(wanted, indent=1))
    made = plan(tmp_path)
    assert len(made.splits) > 4
    assert rows(read(made)) == wanted


def test_rows_added_while_a_job_runs_are_not_of_the_input(tmp_path):
    write(tmp_path, "a.jsonl", FORMATS["jsonl"]("a", "b"))
    made = plan(tmp_path)
    with open(tmp_path / "a.jsonl", "a") as file:
        file.write(FORMATS["jsonl"]("c"))
    assert [row["text"] for row in rows(read(made))] == ["a", "b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_ranges_of_files_on_a_store(encoding, monkeypatch):
    import fsspec

    monkeypatch.setattr("pipemill.actors.sources.split_ranges._FEWEST_ROWS", 7)
    store = fsspec.filesystem("memory")
    texts = [f"{n} é" for n in range(300)]
    try:
        store.pipe_file("/values/a.jsonl", FORMATS["jsonl"](*texts).encode(encoding))
        store.pipe_file("/values/b.txt", "".join(f"{text}\n" for text in texts).encode(encoding))
        for name in ("a.jsonl", "b.txt"):
            for size in (None, 11):
                made = plan(f"memory://values/{name}", size)
                assert len(made.splits) > 5 or encoding == "utf-16"
                assert [row["text"] for row in rows(read(made))] == texts
    finally:
        store.rm("/values", recursive=True)


def test_lines_that_end_with_a_bare_return_are_said(tmp_path):
    write(tmp_path, "mac.csv", "text,n\ra,1\rb,2\r")
    with pytest.raises(ConfigError, match=r"mac.csv as CSV: its header: a carriage return \(CR\)"):
        plan(tmp_path)
    write(tmp_path, "mac.csv", "text,n\na,1\na\rb,2\nc,3\n")
    (batch,) = read(plan(tmp_path))
    assert batch.rows["text"].to_pylist()[0::2] == ["a", "c"]
    assert "end the lines with LF" in str(batch.failures[1])


@pytest.mark.parametrize(
    ("name", "text"), [("mac.txt", "a\rb\rc"), ("mac.jsonl", '{"text": "a"}\r{"text": "b"}\r')]
)
def test_text_and_json_of_bare_returns_are_refused(tmp_path, name, text):
    write(tmp_path, name, text)
    with pytest.raises(ConfigError, match=rf"{name}.*its lines end with a carriage return \(CR\)"):
        plan(tmp_path)
    (tmp_path / name).rename(tmp_path / f"b-{name}")
    write(tmp_path, f"a{(tmp_path / name).suffix}", "one\r\n" if "txt" in name else '{"text": "x"}')
    batches = read(plan(tmp_path))
    assert sum(batch.rows.num_rows for batch in batches) == 2
    assert len(batches[-1].failures) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"text": "a"},\n{"text": "b"},\n', "line 1 is not JSON: Extra data"),
        ("{'text': 'a'}\n{'text': 'b'}\n", "line 1 is not JSON: Expecting property name"),
        ('["a", 1]\n["b", 2]\n', "line 1 must be a JSON object, not"),
    ],
)
def test_lines_that_are_no_objects_say_why(tmp_path, text, said):
    write(tmp_path, "a.jsonl", text)
    with pytest.raises(ConfigError, match=rf"no JSON object .*a\.jsonl: {said}"):
        plan(tmp_path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.txt", "rows.tar"])
@pytest.mark.parametrize(
    ("compress", "said"),
    [
        (gzip.compress, "it is compressed by gzip: let its name end with .gz"),
        (zstandard.compress, "it is compressed by zstd: let its name end with .zst"),
        (bz2.compress, "it is compressed by bzip2: let its name end with .bz2"),
        (lzma.compress, "it is compressed by xz: let its name end with .xz"),
    ],
)
def test_a_file_that_is_compressed_against_its_name_is_said(tmp_path, name, compress, said):
    write(tmp_path, name, compress(GARBAGE))
    with pytest.raises(ConfigError, match=said):
        plan(tmp_path)


@pytest.mark.parametrize("size", [None, 1])
def test_a_byte_order_mark_alone_is_no_row(tmp_path, size):
    write(tmp_path, "a.txt", codecs.BOM_UTF8)
    write(tmp_path, "b.txt", codecs.BOM_UTF8 + b"\n")  # a blank line
    assert [row["text"] for row in rows(read(plan(tmp_path, size)))] == [""]
    (tmp_path / "a.csv").write_bytes(codecs.BOM_UTF8)
    with pytest.raises(ConfigError, match=r"a\.csv has no header line"):
        plan(tmp_path / "a.csv")
    write(tmp_path, "b.csv", "text\none\n")
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert [row["text"] for row in rows(read(plan(files, size)))] == ["one"]
