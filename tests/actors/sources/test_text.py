"""CSV and plain text: rows once and in order, whatever is within quotes."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
from datetime import date

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.reading import Reading
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import list_files

from pipemill.errors import ConfigError
from tests.support.splits import FOLDER, plan, read, rows, split_of

PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    # Of two frames, with the zeros that xz allows after them.
    ".bz2": lambda data: bz2.compress(data[:99]) + bz2.compress(data[99:]),
    ".xz": lambda data: lzma.compress(data[:99]) + bytes(8) + lzma.compress(data[99:]) + bytes(4),
}
FIELD = st.text(st.sampled_from('ab",\n\té ; '), max_size=6).map(lambda s: f"x{s}")
SIZES = {"size": st.none() | st.integers(1, 12), "limit": st.none() | st.integers(1, 40)}


def written(table, dialect="excel", end="\r\n") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, dialect, lineterminator=end).writerows(table)
    return text.getvalue().encode()


@FOLDER
@given(
    fields=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=30),
    end=st.sampled_from(["\n", "\r\n"]),
    kind=st.sampled_from(["csv", "tsv"]),
    pack=st.sampled_from(sorted(PACK)),
    **SIZES,
)
def test_rows_of_csv_whatever_is_quoted(tmp_path, fields, end, kind, pack, size, limit):
    for old in tmp_path.glob("*"):
        old.unlink()
    data = written([("n", "a", "b")], end=end).replace(b",", b"\t" if kind == "tsv" else b",")
    dialect = "excel" if kind == "csv" else "excel-tab"
    data += written([(i, *pair) for i, pair in enumerate(fields)], dialect, end)
    (tmp_path / f"a.{kind}{pack}").write_bytes(PACK[pack](data))
    made = Plan.from_bytes(plan(tmp_path, rows_per_part=size, limit=limit).to_bytes())
    batches = read(made)
    assert not any(batch.failures for batch in batches)
    got = [(row["n"], row["a"], row["b"]) for row in rows(batches)]
    assert got == [(str(i), *pair) for i, pair in enumerate(fields)][:limit]
    if size:
        assert all(1 <= batch.rows.num_rows <= size for batch in batches)


def test_declared_types_hold_and_other_values_die_alone(tmp_path):
    lines = [f"{i},{i / 2},2024-01-{i + 1:02},word {i},true,\n" for i in range(20)]
    header = "n,x,day,t,flag,empty\n"
    (tmp_path / "a.csv").write_text(header + "".join(lines))
    types = {"n": pa.int64(), "x": pa.float64(), "day": pa.date32(), "flag": pa.bool_()}
    reading = Reading(types=types)
    made = plan(tmp_path, rows_per_part=20, reading=reading)
    assert [str(kind) for kind in made.schema.types] == [
        "int64", "double", "date32[day]", "string", "bool", "string",
    ]  # fmt: skip
    lines[3] = "many,1.5,2024-01-04,word 3,true,\n"
    lines[5] = "5,2.5\n"
    lines[7] = '7,,,"a ""quoted"" word,\nin two lines",,x\n'
    data = (header + "".join(lines)).encode().replace(b"word 9", b"word \xff")
    (tmp_path / "a.csv").write_bytes(data)
    source = open_source("csv", {}, made.schema, reading)
    batch = source.read(split_of(str(tmp_path / "a.csv"), 0, -1))
    assert {row: failure.message for row, failure in batch.failures.items()} == {
        3: f"column 'n' is \"many\", not a whole number (int64) (line 5 of {tmp_path}/a.csv)",
        5: f"the row has 2 fields, the header 6 (line 7 of {tmp_path}/a.csv)",
        9: f"column 't' is b'word \\xff', which is not UTF-8 (line 12 of {tmp_path}/a.csv): name "
        "another encoding in input.encoding",
    }
    assert {failure.stage for failure in batch.failures.values()} == {"read"}
    got = batch.rows.to_pylist()
    assert got[4] == {
        "n": 4, "x": 2.0, "day": date(2024, 1, 5), "t": "word 4", "flag": True, "empty": "",
    }  # fmt: skip
    assert (got[7]["t"], got[7]["x"], got[7]["empty"]) == (
        'a "quoted" word,\nin two lines',
        None,
        "x",
    )
    assert [row["n"] for row in got] == [None if i in (3, 5) else i for i in range(20)]
    assert (got[3]["t"], got[9]["t"], got[9]["flag"]) == ("word 3", None, True)


@pytest.mark.parametrize("size", [None, 2])
def test_a_quote_that_is_never_closed_is_a_dead_letter(tmp_path, size):
    (tmp_path / "a.csv").write_text('n,t\n0,x\n1,5" disk\n2,"open\nx\n4,x\n')
    batches = read(plan(tmp_path, rows_per_part=size))
    assert [row["n"] for row in rows(batches)] == ["0", "1", None]
    assert list(batches[-1].failures) == [2 % (size or 3)]
    assert "at byte 18 is never closed" in next(iter(batches[-1].failures.values())).message
    assert rows(batches)[1]["t"] == '5" disk'


def test_files_and_columns(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfn,t\n1,x\n\n")
    (tmp_path / "b.csv").write_text("t,n\ny,2")
    (tmp_path / "c.csv").write_text("n,t\n")
    made = plan(tmp_path)
    assert rows(read(made)) == [{"n": "1", "t": "x"}, {"n": "2", "t": "y"}]
    some = open_source("csv", {}, pa.schema([("n", pa.int64())]))
    assert some.read(split_of(f"{tmp_path}/b.csv", 0, -1)).rows.to_pylist() == [{"n": 2}]
    (tmp_path / "b.csv").write_text("n,t\n2.5,y\nz,y\n")
    assert str(plan(tmp_path).schema.field("n").type) == "string"
    (tmp_path / "d.csv").write_text("n,u\n1,2\n")
    with pytest.raises(ConfigError, match=r"d\.csv and .*a\.csv have different columns: t, u"):
        plan(tmp_path)
    (tmp_path / "d.csv").write_text("n,t,,\n3,z,,\n")
    spread = {"n": "3", "t": "z", "Unnamed: 2": "", "Unnamed: 3": ""}
    assert rows(read(plan(tmp_path / "d.csv"))) == [spread]
    for text, message in [
        ("n,n\n1,2\n", "two columns named 'n'"),
        ("", "no header line"),
        ("n,t\r1,2\r", "a carriage return"),
    ]:
        (tmp_path / "d.csv").write_text(text, newline="")
        with pytest.raises(ConfigError, match=rf"d\.csv.*{message}"):
            plan(tmp_path / "d.csv")


@pytest.mark.parametrize("size", [None, 7])
@pytest.mark.parametrize("stray", [1, 2500])
def test_a_stray_carriage_return_costs_its_own_row(tmp_path, stray, size):
    lines = [f"{n},word {n}" for n in range(3000)]
    lines[stray] = f"{stray},wo\rrd"
    lines[stray + 1] = f'{stray + 1},"wo\rrd"'
    data = "\r\n".join(["n,t", *lines]).encode()
    (tmp_path / "a.csv").write_bytes(data)
    batches = read(plan(tmp_path, rows_per_part=size))
    wanted = [{"n": str(n), "t": f"word {n}"} for n in range(3000)]
    wanted[stray] = {"n": None, "t": None}
    wanted[stray + 1]["t"] = "wo\rrd"
    assert rows(batches) == wanted
    (failed,) = [failure for batch in batches for failure in batch.failures.values()]
    assert f"invalid CSV at byte {data.index(lines[stray].encode())}" in failed.message


def test_rows_of_empty_fields_are_rows(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\nx\ty\n\t\n\t\n\n\t\n")
    made = plan(tmp_path, rows_per_part=1)
    assert rows(read(made)) == [{"a": "x", "b": "y"}, *[{"a": "", "b": ""}] * 3]


def test_large_csv_files_are_cut_between_records(tmp_path, monkeypatch):
    monkeypatch.setattr("pipemill.actors.sources.byte_ranges.LARGE_FILE", 1000)
    wanted = [(str(i), f'a\n"{i}"\n') for i in range(500)]
    (tmp_path / "a.csv").write_bytes(written([("n", "t"), *wanted]))
    made = plan(tmp_path)
    assert len(made.splits) == 8
    assert [(str(row["n"]), row["t"]) for row in rows(read(made))] == wanted


@FOLDER
@given(
    lines=st.lists(st.text(st.sampled_from("ab é\t\r\x0b\u2028"), max_size=8), max_size=30),
    pack=st.sampled_from(sorted(PACK)),
    cut=st.integers(3, 60),
    end=st.booleans(),
    **SIZES,
)
def test_lines_of_text(tmp_path, lines, pack, cut, end, size, limit):
    for old in tmp_path.glob("*"):
        old.unlink()
    data = "\n".join([*lines, "the last"]).encode() + (b"\n" if end else b"")
    file = tmp_path / f"a.txt{pack}"
    file.write_bytes(PACK[pack](data))
    wanted = [line.removesuffix("\r") for line in [*lines, "the last"]]
    batches = read(plan(tmp_path, rows_per_part=size, limit=limit))
    assert [row["text"] for row in rows(batches)] == wanted[:limit]
    source = open_source("text", {}, plan(tmp_path).schema)
    pieces = [
        source.read(split_of(str(file), a, min(a + cut, len(data))))
        for a in range(0, len(data), cut)
    ]
    assert [row["text"] for row in rows(pieces)] == wanted


def test_lines_that_are_no_text_die_alone(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\n\xff\n\nfour")
    (batch,) = read(plan(tmp_path))
    assert batch.rows["text"].to_pylist() == ["one", None, "", "four"]
    assert {row: failure.error for row, failure in batch.failures.items()} == {
        1: "UnicodeDecodeError"
    }


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_bytes("füñf\nsëchs\n".encode("latin-1"))
    _, batch = read(plan(tmp_path))
    assert batch.rows.num_rows == 1
    assert "none of its lines is text; " in batch.failures[0].message
    (tmp_path / "a.txt").unlink()
    with pytest.raises(ConfigError, match=r"none of its first lines is UTF-8.*input\.encoding"):
        plan(tmp_path)
    latin = Reading(encoding="latin-1")
    (batch,) = read(plan(tmp_path, reading=latin), latin)
    assert batch.rows["text"].to_pylist() == ["füñf", "sëchs"]


def test_text_beside_data_is_a_note_and_a_compressed_file_cut_off_an_error(tmp_path):
    (tmp_path / "README.txt").write_text("what this is")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"n\n1\n"))
    files, format, _ = list_files(str(tmp_path), "auto", {}, None)
    assert (format, [file.path for file in files]) == ("csv", [str(tmp_path / "a.csv.gz")])
    files, format, _ = list_files(str(tmp_path), "text", {}, None)
    assert [file.path for file in files] == [str(tmp_path / "README.txt")]
    data = gzip.compress(b"n\n" + b"".join(b"%d\n" % (i * 7919**9) for i in range(20)))
    (tmp_path / "a.csv.gz").write_bytes(data)
    made = plan(tmp_path)
    (tmp_path / "a.csv.gz").write_bytes(data[: len(data) // 2])
    (batch,) = read(made)
    assert batch.rows.to_pylist() == [{"n": None}]
    assert "a.csv.gz as CSV: Compressed file ended" in batch.failures[0].message
    with pytest.raises(ConfigError, match=r"can't read .*a\.csv\.gz"):
        plan(tmp_path)
