"""Splits hold every row once and in order, whatever the sizes, for every format."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pipemill.actors.sources.byte_ranges import ByteRangePlanner
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.reading import Reading
from pipemill.actors.sources.streams.line_files import LineFiles
from pipemill.actors.storage import backoff
from pipemill.actors.storage.filesystem import make_absolute
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import list_files
from pyarrow.csv import write_csv

from pipemill.errors import ConfigError
from tests.support.splits import FOLDER, plan, read, rows, split_of

LINES = st.lists(st.text(max_size=30), max_size=30)


def write_jsonl(path: Path, lines: list[str]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)


@FOLDER
@given(
    texts=LINES.filter(bool), size=st.integers(1, 70), cut=st.integers(7, 400), end=st.booleans()
)
def test_byte_ranges_anywhere_in_a_line_hold_every_row_once(tmp_path, texts, size, cut, end):
    wanted = [{"n": i, "t": text} for i, text in enumerate(texts)]
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(wanted)]
    file = tmp_path / "a.jsonl"
    file.write_bytes("\n".join(lines).encode() + (b"\n\n" if end else b""))
    made = plan(file)
    assert made.splits
    # The plan's own cuts, and cuts at any byte.
    assert rows(read(made)) == wanted
    source = open_source("jsonl", {}, made.schema)
    length = file.stat().st_size
    pieces = [
        source.read(split_of(str(file), a, min(a + cut, length))) for a in range(0, length, cut)
    ]
    assert rows(pieces) == wanted
    # Exactly so many rows in each split, when that is asked for.
    exact = read(plan(file, rows_per_part=size))
    assert rows(exact) == wanted
    assert all(b.rows.num_rows == size for b in exact[:-1])


@FOLDER
@given(
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=4).filter(sum),
    group=st.integers(1, 30),
    size=st.integers(1, 40),
    limit=st.none() | st.integers(1, 120),
)
def test_row_ranges_of_parquet_hold_every_row_once(tmp_path, counts, group, size, limit):
    for old in tmp_path.glob("*.parquet"):
        old.unlink()
    first = 0
    for number, count in enumerate(counts):
        table = pa.table({"n": pa.array(range(first, first + count), pa.int64())})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=group)
        first += count
    batches = read(plan(tmp_path, rows_per_part=size, limit=limit))
    taken = min(first, limit or first)
    assert [row["n"] for row in rows(batches)] == list(range(taken))
    assert all(1 <= batch.rows.num_rows <= size for batch in batches)


@pytest.mark.parametrize(
    "suffix", ["jsonl", "jsonl.gz", "jsonlines", "jsonl.zst", "ndjson", "json"]
)
def test_plain_and_compressed_lines(tmp_path, suffix):
    wanted = [{"n": i, "t": "é" * i} for i in range(50)]
    write_jsonl(tmp_path / f"a.{suffix}", [json.dumps(row) for row in wanted])
    assert rows(read(plan(tmp_path))) == wanted
    batches = read(plan(tmp_path, rows_per_part=7, limit=45))
    assert [b.rows.num_rows for b in batches] == [7] * 6 + [3]
    assert rows(batches) == wanted[:45]


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
def test_a_compressed_file_that_ends_too_early_is_not_fewer_rows(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    write_jsonl(file, [json.dumps({"n": i, "t": str(i * 7919)}) for i in range(20_000)])
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for size in (None, 1000):
        with pytest.raises(ConfigError, match=rf"can't read .*a\.{suffix}: .*(ended|cut off)"):
            plan(file, size)
    write_jsonl(tmp_path / "b.jsonl", [json.dumps({"n": 1, "t": "x"})] * 2)
    for size in (None, 1000):
        bad, good = read(plan(tmp_path, size))
        assert bad.rows.to_pylist() == [{"n": None, "t": None}]
        assert f"can't read {file} as JSON" in bad.failures[0].message
        assert good.rows.num_rows == 2


def test_limit_and_exact_parts_over_several_files_some_of_them_empty(tmp_path):
    for number, count in enumerate([2, 0, 3, 4]):
        write_jsonl(tmp_path / f"{number}.jsonl", [json.dumps({"n": i}) for i in range(count)])
    for limit in range(1, 11):
        assert len(rows(read(plan(tmp_path, limit=limit)))) == min(limit, 9)
    assert len(rows(read(plan(tmp_path, rows_per_part=2)))) == 9


def test_lines_that_are_no_rows_die_alone(tmp_path):
    lines = [json.dumps({"n": i, "t": "x"}) for i in range(10)]
    lines[2], lines[4], lines[6] = "{broken", "[1]", '{"n": 6, "t": {"deep": 1}}'
    file = tmp_path / "a.jsonl"
    write_jsonl(file, lines)
    file.write_bytes(file.read_bytes() + b'{"n": 10, "t": "\xff"}\n{"n": 11, "t": "\\ud800"}\n')
    file.write_bytes(file.read_bytes() + b'{"n": 12, "t": ' + b"[" * 100_000 + b"\n")
    reading = Reading(kinds={"t": "text"})
    (batch,) = read(plan(file, reading=reading), reading)
    said = {
        row: failure.message.replace(str(file), "FILE") for row, failure in batch.failures.items()
    }
    assert said == {
        2: "line 3 of FILE is not JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)",
        4: "line 5 of FILE must be a JSON object, not '[1]'",
        6: "column 't' is {\"deep\": 1}, not a text (line 7 of FILE)",
        10: "line 11 of FILE is not UTF-8 (invalid start byte): name another encoding in "
        "input.encoding",
        11: "column 't' is \"\\ud800\", not a text (line 12 of FILE)",
        12: "line 13 of FILE is JSON that is nested too deeply",
    }
    assert {f.stage for f in batch.failures.values()} == {"read"}
    # What could be read of a row that failed stays: it may hold the id.
    assert [tuple(row.values()) for row in batch.rows.to_pylist() if row["n"] is not None] == [
        (0, "x"), (1, "x"), (3, "x"), (5, "x"), (6, None), (7, "x"), (8, "x"), (9, "x"), (11, None),
    ]  # fmt: skip


def test_a_column_seen_in_some_rows_only_and_one_that_changes_type(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ['{"a": 1}', '{"a": 2.5, "b": null}', '{"c": ["x"], "a": 3}'])
    made = plan(tmp_path)
    assert made.schema == pa.schema(
        [("a", pa.float64()), ("b", pa.string()), ("c", pa.list_(pa.string()))]
    )


def test_columns_whose_values_have_no_type_in_common_are_kept_as_json_text(tmp_path):
    wanted = [
        {"n": 0, "m": {"k": 1}, "e": {}, "l": [], "big": 2**64 - 1},
        {"n": 1, "m": {"k": "x"}, "e": {}, "l": [], "big": 1},
        {"n": 2, "m": None, "e": {"later": 1}, "l": ["later"], "big": 2},
    ]
    write_jsonl(tmp_path / "a.jsonl", [json.dumps(row) for row in wanted])
    made = Plan.from_bytes(plan(tmp_path).to_bytes())
    (batch,) = read(made)
    assert not batch.failures
    got = batch.rows.to_pylist()
    assert [row["m"] for row in got] == ['{"k": 1}', '{"k": "x"}', None]
    assert [row["l"] for row in got] == [[], [], ["later"]]
    assert [json.loads(str(row["big"])) for row in got] == [2**64 - 1, 1, 2]
    made = plan(tmp_path)
    write_jsonl(tmp_path / "b.jsonl", ['{"e": {}}', '{"e": {}}'])
    (empty,) = read(plan(tmp_path / "b.jsonl"))
    assert empty.rows["e"].to_pylist() == ["{}", "{}"]


def test_the_output_is_never_input_however_it_is_spelled(tmp_path):
    for name in ("a.parquet", "out/part-1.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"n": [1]}), tmp_path / name)
    (tmp_path / "way").symlink_to(tmp_path / "out")
    for spelled in (f"{tmp_path}/out", f"file://{tmp_path}/out", f"{tmp_path}/way", "out/"):
        output = spelled if spelled != "out/" else f"{tmp_path}/x/../out/"
        files = list_files(str(tmp_path / "*.parquet"), "auto", {}, output)[0]
        assert [Path(f.path).name for f in files] == ["a.parquet"]
        (tmp_path / "way").unlink(missing_ok=True)
        files = list_files(str(tmp_path), "auto", {}, output.replace("way", "out"))[0]
        assert [Path(f.path).name for f in files] == ["a.parquet"]


def test_a_link_to_a_folder_is_not_passed_over(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "other").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "in/a.parquet")
    (tmp_path / "in/link").symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match="is a link to a folder"):
        list_files(str(tmp_path / "in"), "auto", {}, "/nowhere")


def test_a_file_that_changes_after_it_was_planned_is_named(tmp_path):
    """Lines that are added to a log are for the next run; what else changes is another file."""
    logs, table = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    cells = tmp_path / "a.csv"
    cells.write_text("n\n1\n2\n")
    write_jsonl(logs, ['{"n": 1}', '{"n": 2}'])
    made, made_of_cells = plan(logs), plan(cells)
    write_jsonl(logs, ['{"n": 1}', '{"n": 2}', '{"n": 3}'])
    cells.write_text('n\n1\n2\n"3')  # which is still being written
    assert [row["n"] for row in rows(read(made))] == [1, 2]
    batches = read(made_of_cells)
    assert [row["n"] for row in rows(batches)] == ["1", "2"]
    assert not any(batch.failures for batch in batches)
    write_jsonl(logs, ['{"n": 1}'])
    with pytest.raises(ValueError, match=r"a\.jsonl has changed since it was planned: run again"):
        read(made)
    for count in (1, 9):
        pq.write_table(pa.table({"n": ["a", "b", "c"]}), table)
        made = plan(table)
        pq.write_table(pa.table({"n": ["x"] * count}), table)
        with pytest.raises(ValueError, match=r"a\.parquet has changed since it was planned: run"):
            read(made)


def test_a_link_to_a_file_in_a_folder_is_that_file(tmp_path):
    """As in the Hub's cache, where each file is a link. A new file behind it is noticed."""
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "a")
    (tmp_path / "in/a.parquet").symlink_to(tmp_path / "a")
    (before,) = list_files(str(tmp_path / "in"), "auto", {}, "/nowhere").files
    (named,) = list_files(str(tmp_path / "in/a.parquet"), "auto", {}, "/nowhere").files
    assert before == named
    assert before.size == (tmp_path / "a").stat().st_size
    os.utime(tmp_path / "a", (1, 1))
    (after,) = list_files(str(tmp_path / "in"), "auto", {}, "/nowhere").files
    assert (after.version, after.size) == ("1.0", before.size)
    assert after.version != before.version


def test_rows_that_cannot_be_decoded_are_dead_and_the_others_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(40)]
    pq.write_table(pa.table({"n": range(40), "text": texts}), path, row_group_size=10)
    footer = pq.read_metadata(path)
    data = bytearray(path.read_bytes())
    for group in (1, 3):
        start = footer.row_group(group).column(1).dictionary_page_offset
        data[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    made = plan(path, rows_per_part=15)
    batches = read(made)
    firsts = np.cumsum([0, *(batch.rows.num_rows for batch in batches)])
    failed = [
        int(first) + row
        for first, batch in zip(firsts, batches, strict=False)
        for row in sorted(batch.failures)
    ]
    assert failed == [*range(10, 20), *range(30, 40)]
    assert {f.stage for batch in batches for f in batch.failures.values()} == {"read"}
    assert "row group 1 can't be decoded" in batches[0].failures[12].message
    found = rows(batches)
    good = [*range(10), *range(20, 30)]
    assert [found[n] for n in good] == [{"n": n, "text": texts[n]} for n in good]
    assert found[12] == {"n": None, "text": None}


@pytest.mark.parametrize("kept", [0, 3, 400, -9])
def test_a_file_that_is_no_parquet_is_one_dead_row_beside_others(tmp_path, kept):
    whole = pa.table({"n": range(40), "text": ["a"] * 40})
    for name in "abc":
        pq.write_table(whole, tmp_path / f"{name}.parquet")
    data = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[:kept])
    made = plan(tmp_path, rows_per_part=40)
    assert [split.rows for split in made.splits] == [40, None, 40]
    good, bad, other = read(made)
    assert (good.rows, other.rows) == (whole, whole)
    assert bad.rows.to_pylist() == [{"n": None, "text": None}]
    assert "b.parquet as Parquet" in bad.failures[0].message
    (tmp_path / "b.parquet").write_bytes(data)
    with pytest.raises(ValueError, match="now it can"):
        read(made)


def test_view_columns_of_parquet_are_read_as_text(tmp_path):
    views = pa.table({"t": pa.array(["a", None, "c"], pa.string_view())})
    pq.write_table(views, tmp_path / "a.parquet")
    (batch,) = read(plan(tmp_path))
    assert batch.rows.schema == pa.schema([("t", pa.string())])
    assert batch.rows["t"].to_pylist() == ["a", None, "c"]


def test_what_is_listed(tmp_path):
    for name in ("b.parquet", "a.parquet", "_c.parquet", ".d.parquet", "sub/e.parquet", "x.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"n": [1]}), path)
    found = list_files(str(tmp_path), "auto", {}, str(tmp_path / "sub"))[0]
    assert [Path(file.path).name for file in found] == ["a.parquet", "b.parquet"]
    everything = [str(tmp_path / "b.parquet"), str(tmp_path), str(tmp_path / "[ab].parquet")]
    found = list_files(everything, "auto", {}, "/nowhere")[0]
    assert [Path(f.path).name for f in found] == ["b.parquet", "a.parquet", "e.parquet"]


def test_inputs_that_can_not_be_read_are_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is none")
    with pytest.raises(ConfigError, match=r"can't read .*a\.parquet as Parquet"):
        plan(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"no input at .*nothing\*: found no file"):
        plan(tmp_path / "nothing*")
    (tmp_path / "rows.dat").write_text("{}")
    with pytest.raises(ConfigError, match="set input.format"):
        plan(tmp_path / "rows.dat")
    write_jsonl(tmp_path / "b.jsonl", ['{"a": 1}'])
    (tmp_path / "state.json").write_text("[1]")  # not one that datasets wrote
    with pytest.raises(ConfigError, match="mixes formats .jsonl, parquet."):
        plan(tmp_path)


def test_parquet_files_whose_types_differ_are_read_as_one(tmp_path):
    pq.write_table(pa.table({"n": pa.array([1], pa.int32())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": pa.array([2], pa.int64())}), tmp_path / "b.parquet")
    made = plan(tmp_path)
    assert {batch.rows.schema for batch in read(made)} == {pa.schema([("n", pa.int64())])}


def test_a_value_that_the_planned_type_does_not_hold_costs_its_own_row(tmp_path):
    large = 2**53 + 1
    pq.write_table(pa.table({"n": [1, large, 3, 4]}), tmp_path / "a.parquet", row_group_size=3)
    pq.write_table(pa.table({"n": [0.5]}), tmp_path / "b.parquet")
    made = plan(tmp_path)
    made.schema = pa.schema([("n", pa.float64())])  # as outputs were planned before
    batches = read(made)
    assert [row["n"] for row in rows(batches)] == [1.0, None, 3.0, 4.0, 0.5]
    (failure,) = [failure for batch in batches for failure in batch.failures.values()]
    assert failure.message.startswith("column 'n': ")
    assert str(large) in failure.message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.zip", r"a \.zip is an archive: name the files in it by their suffix, as zip://.*a.zip"),
        ("a.orc", r"\.orc files are not read: .*\(pipemill.run\(input=pyarrow.orc.read_table\('/"),
        ("a.xlsx", r"\.xlsx files are not read: .*pandas.read_excel\('/"),
        ("a.jsonl.lz4", r"\.lz4 files are not unpacked: unpack them, or compress them as \.gz"),
    ],
)
def test_files_of_other_formats_say_how_to_read_them(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"PK")
    for path, start in ((tmp_path, "no input at .*found 1 files"), (tmp_path / name, "can't read")):
        with pytest.raises(ConfigError, match=f"{start}.*{said}"):
            plan(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.txt", "a.png"])
def test_pointers_of_git_lfs_are_no_files(tmp_path, name):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{64 * 'a'}\nsize 12345\n"
    for number in range(3):
        (tmp_path / f"{number}{name}").write_text(pointer if number else pointer * 2)
    with pytest.raises(ConfigError, match=f"1{name} is a Git LFS pointer.* `git lfs pull` in "):
        plan(tmp_path)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.txt", "a.tar"])
def test_links_to_nothing_are_no_files_without_rows(tmp_path, name):
    """As git-annex leaves them where a file was not fetched."""
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/1{name}").symlink_to(tmp_path / "gone")
    for path in (tmp_path / "in", f"{tmp_path}/in/*{name[1:]}"):
        with pytest.raises(ConfigError, match=f"1{name} is a link to .*gone, which does not exist"):
            plan(path)
    (tmp_path / "gone").write_text("")
    (tmp_path / "in/b.notes").symlink_to(tmp_path / "nowhere")  # of no format that is read
    assert len(list_files(str(tmp_path / "in"), "auto", {}, None).files) == 1


def test_a_picture_that_is_a_link_to_nothing_is_one_dead_letter(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "gone")
    (batch,) = read(plan(tmp_path))
    assert [failure.error for failure in batch.failures.values()] == ["FileNotFoundError"]


def test_an_archive_that_is_encrypted_or_of_an_unknown_compression_is_one_line(tmp_path):
    for at, value, said in ((8, 1, "is encrypted"), (10, 97, "is compressed in a way")):
        with zipfile.ZipFile(tmp_path / f"{at}.zip", "w") as archive:
            archive.writestr("a.jsonl", '{"text": "a"}')
        data = bytearray((tmp_path / f"{at}.zip").read_bytes())
        data[data.find(b"PK\x01\x02") + at] = value  # in the list of members
        (tmp_path / f"{at}.zip").write_bytes(data)
        with pytest.raises(ConfigError, match=f"can't open zip.*: a.jsonl {said}.*; unpack"):
            plan(f"zip://*.jsonl::{tmp_path}/{at}.zip")


@pytest.mark.parametrize("path", ["zip://", "zip://b/*", "zip://b", "zip://b/1.jsonl.gz"])
def test_files_in_an_archive_are_read_where_they_are(tmp_path, path):
    texts = ["one", "two", "three"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for n, text in enumerate(texts):
            data = gzip.compress(json.dumps({"text": text}).encode())
            archive.writestr(f"b/{n}.jsonl.gz", data)
    made = plan(f"{path}::{tmp_path}/a.zip")
    named = path.endswith(".gz")
    assert [row["text"] for row in rows(read(made))] == (texts[1:2] if named else texts)
    assert {file.path for file in made.files()} == {
        f"zip://b/{n}.jsonl.gz::{tmp_path}/a.zip" for n in ([1] if named else range(3))
    }


@pytest.mark.parametrize("types", [{}, {"text": pa.large_string()}])
def test_each_footer_of_parquet_is_read_once_to_plan(tmp_path, monkeypatch, types):
    for number in range(5):
        pq.write_table(pa.table({"text": ["a"] * number}), tmp_path / f"{number}.parquet")
    read, files = pq.read_metadata, []

    def note(file):
        files.append(file.name)
        return read(file)

    monkeypatch.setattr(pq, "read_metadata", note)
    made = plan(tmp_path, reading=Reading(types=types))
    assert [split.rows for split in made.splits] == [1, 2, 3, 4]
    assert sorted(files) == [str(tmp_path / f"{number}.parquet") for number in range(5)]


def test_a_parquet_file_without_any_column_that_is_read_has_its_rows(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"other": range(10)}), file, row_group_size=4)
    source = open_source("parquet", {}, pa.schema([("text", pa.string())]))
    batches = [source.read(split_of(str(file), a, b)) for a, b in ((0, 3), (3, 9), (9, 10))]
    assert [batch.rows.num_rows for batch in batches] == [3, 6, 1]
    assert rows(batches) == [{"text": None}] * 10


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_media_that_the_input_only_names_are_few_in_a_split(tmp_path, monkeypatch, name):
    file, table = tmp_path / name, pa.table({"image": [f"{n:05}.jpg" for n in range(64_000)]})
    monkeypatch.setattr("pipemill.actors.sources.byte_ranges.LARGE_FILE", 2**16)
    if file.suffix == ".parquet":
        pq.write_table(table, file)
    elif file.suffix == ".csv":
        write_csv(table, file)
    else:
        write_jsonl(file, list(map(json.dumps, table.to_pylist())))
    usual, few = plan(file), plan(file, reading=Reading(kinds={"image": "image"}))
    assert len(usual.splits) == 32
    assert 62 <= len(few.splits) <= 64


def test_an_input_that_is_not_there_is_explained(tmp_path, monkeypatch):
    for folder in ("in", "hidden", "data [v2]"):
        (tmp_path / folder).mkdir()
    for name in ("hidden/_rows.csv", "data [v2]/rows.csv"):
        (tmp_path / name).write_text("n\n1\n")
    monkeypatch.chdir(tmp_path)
    left_out = f"begin with . or _ are left out, as {tmp_path}/hidden/_rows.csv: give its own path"
    for path, why in {
        "hidden": f"names that {left_out}",
        "hidden/_*.csv": f"names that {left_out}",
        "data [v2]/*.csv": "found no file that fits the pattern: write [[] for the [ in "
        f"{tmp_path}/data [v2]",
        "in": "found no file in that folder",
        "in/*.csv": "found no file that fits the pattern",
        "in/no/rows.csv": f"found no file: {tmp_path}/in/no does not exist",
        "gone/*/*.csv": f"found no file: {tmp_path}/gone does not exist",
        "s3:/bucket/in": f"found no file: {tmp_path}/s3: does not exist (a URL begins with s3://)",
        "memory://no/such/a.csv": "found no file: memory:///no does not exist",
    }.items():
        with pytest.raises(ConfigError) as raised:
            list_files(path, "auto", {}, None)
        assert str(raised.value) == f"no input at {make_absolute(path)}: {why}"
    for path in ("hidden/_rows.csv", "data [[]v2]/*.csv", "data [v2]"):
        assert len(list_files(path, "auto", {}, None).files) == 1


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_the_notes_of_a_cloned_dataset_are_no_rows(tmp_path, suffix):
    for name in ("README.md", ".gitattributes", "dataset_infos.json", "data/dataset_info.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"default": {"features": {}}}')
    if suffix == "parquet":
        pq.write_table(pa.table({"n": [1]}), tmp_path / "data/train-0.parquet")
    else:
        (tmp_path / "data/train-0.jsonl").write_text('{"n": 1}\n')
    for format in ("auto", suffix):
        (file,) = list_files(str(tmp_path), format, {}, None).files
        assert file.path == str(tmp_path / f"data/train-0.{suffix}")
    # They are rows where they are named, or alone.
    named = str(tmp_path / "dataset_infos.json")
    assert [file.path for file in list_files(named, "auto", {}, None).files] == [named]


def test_no_file_after_the_limit_is_opened(tmp_path, monkeypatch):
    (tmp_path / "0.jsonl.gz").write_bytes(b"no gzip")
    for name in "12345":
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a"}\n' * 3)
    opened, open_text = [], LineFiles.open_text

    def note(files, path, start=0):
        opened.append(Path(path).name[0])
        return open_text(files, path, start)

    source, files = open_source("jsonl", {}), list_files(str(tmp_path), "auto", {}, None).files
    monkeypatch.setattr(ByteRangePlanner, "_measure_row_width", lambda *_: 14.0)
    monkeypatch.setattr(LineFiles, "open_text", note)
    ranges = list(source.plan_splits(files, None, 5))
    assert [one.rows for one in ranges] == [None, 3, 1]
    assert opened == ["0", "1", "2"]


def test_each_file_is_asked_for_again_by_itself(tmp_path, monkeypatch):
    """Of many thousands, more fail than the whole plan may be tried again."""
    for number in range(30):
        (tmp_path / f"{number:02}.jsonl").write_text('{"text": "a"}\n' * 3)
    failed, open_text = set(), LineFiles.open_text

    def fail_first(files, path, start=0):
        if path not in failed:
            failed.add(path)
            raise ConnectionResetError(104, "reset by peer")
        return open_text(files, path, start)

    source, files = open_source("jsonl", {}), list_files(str(tmp_path), "auto", {}, None).files
    monkeypatch.setattr(ByteRangePlanner, "_measure_row_width", lambda *_: 14.0)
    monkeypatch.setattr(LineFiles, "open_text", fail_first)
    monkeypatch.setattr(backoff, "WAITS_S", (0.0, 0.0))
    ranges = list(source.plan_splits(files, 2, None))
    assert [one.file.path for one in ranges] == [file.path for file in files for _ in range(2)]
    assert len(failed) == 30


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl.gz", "a.json", "a.txt.zst"])
def test_a_small_file_with_rows_for_several_splits_is_cut(tmp_path, name):
    """A prompt of 50 characters may be a minute of work."""
    data = [{"id": i, "text": hashlib.sha256(bytes([i % 251])).hexdigest()} for i in range(640)]
    lines = [row["text"] for row in data]
    text = {
        "csv": "id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in data),
        "jsonl": "".join(f"{json.dumps(row)}\n" for row in data),
        "json": json.dumps(data),
        "txt": "".join(f"{line}\n" for line in lines),
    }[name.split(".")[1]].encode()
    packed = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.split(".")[-1], bytes)(text)
    (tmp_path / name).write_bytes(packed)
    made = plan(tmp_path)
    assert len(made.splits) >= (2 if packed != text else 10)
    assert [row["text"] for row in rows(read(made))] == lines
    assert max(len(batch.rows) for batch in read(made)) <= 64


def test_a_compressed_file_has_about_as_many_splits_as_its_text(tmp_path):
    """A part costs some time, too."""
    words = random.Random(0).choices([f"word{i * i}" for i in range(300)], k=200_000)
    lines = "".join(" ".join(words[i : i + 10]) + "\n" for i in range(0, len(words), 10))
    (tmp_path / "a.txt").write_text(lines)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(lines.encode()))
    plain, packed = (len(plan(tmp_path / name).splits) for name in ("a.txt", "b.txt.gz"))
    assert plain / 2 < packed < plain * 2
