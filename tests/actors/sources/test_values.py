"""Values of CSV and JSON files as they are in the file, and rows that die only for what is read."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pickle
from datetime import date, datetime

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipemill.actors.sources import jsonl
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.parsing import json_values
from pipemill.actors.sources.reading import Reading

import pipemill
from pipemill.errors import ConfigError
from tests.support import light
from tests.support.splits import FOLDER, plan, read, rows

TEXT = Reading(kinds={"text": "text"})


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a job without a model over the file of that name, and gives report, rows, letters."""
    light.install(monkeypatch)

    def run(name, text, wanted=None, out="out", **more):
        if text is not None:
            (tmp_path / name).write_text(text)
        job = light.job(tmp_path, [], **more)
        job["output"]["path"] = str(tmp_path / out)
        report = pipemill.run({**job, "input": {"path": str(tmp_path / name), **(wanted or {})}})
        letters = tmp_path / out / "_pipemill/dead-letter"
        dead = ds.dataset(letters).to_table().to_pylist() if report.dead else []
        return report, ds.dataset(tmp_path / out).to_table().to_pylist(), dead

    return run


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def taken(tmp_path, reading=TEXT, size=None):
    """All rows of the files in a folder, and the messages of those that died."""
    made = plan(tmp_path, size, reading=reading)
    batches = read(made, dataclasses.replace(reading, known=tuple(made.schema.names)))
    said = [
        failure.message.replace(f"{tmp_path}/", "")
        for batch in batches
        for _, failure in sorted(batch.failures.items())
    ]
    return made.schema, rows(batches), said


ODD = [
    "007", "+4912345", "12345678901234567891", "1.10", "1e5", "-0", "0x10", "1_000", "1,000",
    "2024-01-01", "10:00", "2024-01-01T10:00:00Z", "True", "FALSE", "", " padded ", "NA", "null",
    "N/A", "NaN", "nan", "inf", "None", "#N/A", "é", '"quoted"', "a\nb",
]  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "tsv", "tab"])
@pytest.mark.parametrize("column", ["id", "text"])
def test_csv_keeps_every_character(tmp_path, suffix, column):
    between = "," if suffix == "csv" else "\t"
    quoted = ['"' + value.replace('"', '""') + '"' for value in ODD]
    data = f"text{between}id\n" + "".join(f"{q}{between}{q}\n" for q in quoted)
    (tmp_path / f"a.{suffix}").write_text(data)
    schema, got, said = taken(tmp_path)
    assert schema.field(column).type == pa.string()
    assert [row[column] for row in got] == ODD
    assert not said


@FOLDER
@given(st.lists(st.text(st.characters(exclude_characters="\r\0", codec="utf-8"), max_size=9)))
def test_csv_keeps_any_text(tmp_path, values):
    import csv

    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [["text", "id"], *zip(values, values, strict=True)]
        )
    assert [row["id"] for row in taken(tmp_path)[1]] == values


@pytest.mark.parametrize("rows_per_part", [None, 1])
def test_csv_keeps_a_byte_order_mark_that_is_in_a_value(tmp_path, rows_per_part):
    texts = ["\ufeff", "a\ufeff", "\ufeffb", "\ufeff\ufeffc", '\ufeff"d"']
    quoted = ['"' + text.replace('"', '""') + '"' if '"' in text else text for text in texts]
    data = "\ufefftext,id\n" + "".join(f"{text},1\n" for text in quoted)
    (tmp_path / "a.csv").write_text(data)
    got = rows(read(plan(tmp_path, rows_per_part)))
    assert [row["text"] for row in got] == texts


@pytest.mark.parametrize("name", ["a,b", 'a "b"', "a\nb", "text"])
def test_csv_has_a_first_column_in_quotes_after_a_byte_order_mark(tmp_path, name):
    quoted = name.replace('"', '""')
    (tmp_path / "a.csv").write_text(f'\ufeff"{quoted}",id\none,1\n\ufefftwo,2\n')
    schema, got, said = taken(tmp_path, Reading(kinds={name: "text"}))
    assert schema.names == [name, "id"]
    assert [row[name] for row in got] == ["one", "\ufefftwo"]
    assert not said


def test_numbers_that_the_task_reads_are_numbers_and_others_are_named(tmp_path):
    reading = Reading(kinds={"text": "text", "top_k": "number", "multi_label": "flag"})
    good = "3,a,1,007\n" * 2000
    (tmp_path / "a.csv").write_text(f"top_k,text,multi_label,n\n{good}2.5,b,0,1\n,c,yes,1\n")
    schema, got, said = taken(tmp_path, reading)
    assert schema.types == [pa.int64(), pa.string(), pa.bool_(), pa.string()]
    assert got[0] == {"top_k": 3, "text": "a", "multi_label": True, "n": "007"}
    assert said == [
        "column 'top_k' is \"2.5\", not a whole number (int64) (line 2002 of a.csv)",
        "column 'multi_label' is \"yes\", not true or false (line 2003 of a.csv)",
    ]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "2.5"], pa.float64()),
        (["1", "20"], pa.int64()),
        (["007", "1"], pa.string()),
        (["1", "12345678901234567891"], pa.string()),
        (["+5", "1"], pa.string()),
        (["2024-01-01"], pa.string()),
    ],
)
def test_what_a_pipeline_of_the_users_is_given(tmp_path, texts, kind):
    (tmp_path / "a.csv").write_text("x\n" + "".join(f"{text}\n" for text in texts))
    reading = Reading(kinds={"x": "any"})
    schema, got, said = taken(tmp_path, reading)
    assert schema.field("x").type == kind
    assert ([str(row["x"]) for row in got], said) == (
        [str(float(text)) if kind == pa.float64() else text for text in texts],
        [],
    )


def test_a_number_in_a_declared_text_is_as_it_is_written(tmp_path):
    written = ["1.10", "1e5", "[1.0, 2.50]", '{"v": 3.0}']
    (tmp_path / "a.jsonl").write_text("".join(f'{{"v": {text}}}\n' for text in written))
    _, got, _ = taken(tmp_path, Reading(types={"v": pa.string()}))
    assert [row["v"] for row in got] == written


def test_declared_types_of_csv(tmp_path):
    types = {
        "i": pa.int32(), "day": pa.date32(), "l": pa.list_(pa.int64()), "d": pa.float64(),
        "f": pa.float32(), "m": pa.decimal128(6, 2), "b": pa.binary(),
    }  # fmt: skip
    good = '7,2024-01-02,"[1, 2]",1.5,0.1,1.20,NA\n,NA,,nan,inf,null,\n'
    bad = [
        "2.5,,,,,,", ",2024,,,,,", ',,"[1.5]",,,,', ",,[1,,,,", ",,,9007199254740993,,,",
        ",,,1e400,,,", ",,,,16777217,,", ",,,,,1.234,", "4294967296,,,,,,",
    ]  # fmt: skip
    data = "i,day,l,d,f,m,b\n" + good + "".join(f"{row}\n" for row in bad)
    (tmp_path / "a.csv").write_text(data)
    schema, got, said = taken(tmp_path, Reading(types=types))
    assert schema == pa.schema(list(types.items()))
    assert got[0]["day"] == date(2024, 1, 2)
    assert (got[0]["l"], got[0]["d"], str(got[0]["m"])) == ([1, 2], 1.5, "1.20")
    assert (got[0]["b"], got[1]["b"]) == (b"NA", b"")
    assert (got[1]["i"], got[1]["day"], str(got[1]["d"]), str(got[1]["f"])) == (
        None, None, "nan", "inf",
    )  # fmt: skip
    assert said == [
        "column 'i' is \"2.5\", not a whole number (int32) (line 4 of a.csv)",
        "column 'day' is \"2024\", not a value of date32[day] (line 5 of a.csv)",
        "column 'l' is [1.5], not a value of list<item: int64> (line 6 of a.csv)",
        "column 'l' is \"[1\", not a value of list<item: int64> (line 7 of a.csv)",
        "column 'd' is \"9007199254740993\", not a number that double can hold (line 8 of a.csv)",
        "column 'd' is \"1e400\", not a number that double can hold (line 9 of a.csv)",
        "column 'f' is \"16777217\", not a number that float can hold (line 10 of a.csv)",
        "column 'm' is \"1.234\", not a value of decimal128(6, 2) (line 11 of a.csv)",
        "column 'i' is \"4294967296\", not a whole number (int32) (line 12 of a.csv)",
    ]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([2**53 + 1, 2], pa.int64()),
        ([2**53 + 1, 2.5], "json"),
        ([2**63, 1], "json"),
        (["x", 3], "json"),
        ([True, 1], "json"),
        ([True, None], pa.bool_()),
        ([[], [1], [2.5]], pa.list_(pa.float64())),
        ([[1], ["x"]], "json"),
        ([[2**53 + 1], [2.5]], "json"),
        ([{"k": 1}, {"z": [1]}], pa.struct([("k", pa.int64()), ("z", pa.list_(pa.int64()))])),
        ([{"k": 1}, {"k": "x"}], "json"),
        ([{}, {}], "json"),
        ([{f"k{i}": 1} for i in range(300)], "json"),
        (["42", "007"], pa.string()),
        (["\ud800x", "y"], pa.string()),
        ([["\ud800"]], "json"),
        ([None], pa.string()),
        ([float("nan"), 1.5], pa.float64()),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_json_values_keep_their_type_or_are_json(tmp_path, values, kind, late):
    """late: whether they come behind rows that have only one of them."""
    before = [values[0]] * 2100 if late else []
    everything = [*before, *values]
    (tmp_path / "a.jsonl").write_text(lines(*({"text": "a", "v": v} for v in everything)))
    schema, got, said = taken(tmp_path)
    assert not said
    found = [row["v"] for row in got]
    if kind == "json":
        assert schema.field("v").metadata == {b"pipemill": b"json"}
        assert [json.loads(value) for value in found] == everything
        return
    assert schema.field("v").type == kind
    if pa.types.is_struct(kind):
        found = [{k: v for k, v in value.items() if v is not None} for value in found]
    if "\ud800x" in values:
        assert found == ['"\\ud800x"' if value == "\ud800x" else value for value in everything]
    else:
        assert str(found) == str(everything).replace("1,", "1.0,") if kind == pa.float64() else True
        assert found == everything or values[0] != values[0]


def test_numbers_are_spelled_as_they_were_where_no_type_holds_them(tmp_path):
    spelled = [
        "1.10",
        "1e400",
        "0.12345678901234567890123",
        "123456789012345678901234",
        "1E5",
        "-0.0",
    ]
    data = "".join(f'{{"text": "a", "v": {number}, "w": [{number}]}}\n' for number in spelled)
    (tmp_path / "a.jsonl").write_text(data + '{"text": "a", "v": "x", "w": {}}\n')
    _, got, said = taken(tmp_path)
    assert [row["v"] for row in got] == [*spelled, '"x"']
    assert [row["w"] for row in got] == [*(f"[{number}]" for number in spelled), "{}"]
    assert not said
    (tmp_path / "a.jsonl").write_text('{"v": 0.10000000000000001}\n{"v": 1.10}\n')
    assert [row["v"] for row in taken(tmp_path)[1]] == [0.1, 1.1]


def test_what_the_task_reads_is_of_its_kind_and_else_names_column_row_and_value(tmp_path):
    reading = Reading(kinds={"text": "text", "top_k": "number", "labels": "labels"})
    texts = [5, "42", None, True, {"a": 1}, 2.5, ["x"]]
    ks = [1, "2", 3, 1, 2, 2, 2]
    labels = [["a"], ["b"], ["c"], ["d"], ["e"], "x, y", ["f"]]
    keys = ("text", "top_k", "labels")
    rows_in = [dict(zip(keys, row, strict=True)) for row in zip(texts, ks, labels, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n" + lines(*rows_in))
    schema, got, said = taken(tmp_path, reading)
    assert schema.types == [pa.string(), pa.int64(), pa.list_(pa.string())]
    assert got[2] == {"text": None, "top_k": 3, "labels": ["c"]}
    assert said == [
        "column 'text' is 5, not a text (line 2 of a.jsonl)",
        "column 'top_k' is \"2\", not a whole number (int64) (line 3 of a.jsonl)",
        "column 'text' is true, not a text (line 5 of a.jsonl)",
        "column 'text' is {\"a\": 1}, not a text (line 6 of a.jsonl)",
        "column 'text' is 2.5, not a text (line 7 of a.jsonl)",
        "column 'text' is [\"x\"], not a text (line 8 of a.jsonl)",
    ]


@pytest.mark.parametrize("counted", [True, False])
def test_a_place_is_a_line_and_in_a_large_file_a_byte(tmp_path, monkeypatch, counted):
    """Though it is in a split that does not begin with the file."""
    if not counted:
        monkeypatch.setattr("pipemill.actors.sources.streams.read_bytes._COUNTED", 30)
    data = lines(*({"n": value} for value in [*range(30), "x"]))
    (tmp_path / "a.jsonl").write_text(data)
    *_, said = taken(tmp_path, Reading(kinds={"n": "number"}), 20)
    place = "line 31" if counted else "the line at byte 290"
    wrong = "column 'n' is \"x\", not a whole number (int64)"
    assert said == [f"{wrong} ({place} of a.jsonl)"]
    (tmp_path / "a.jsonl").unlink()
    data = "n,text\n" + "".join(f"{n},a\n" for n in range(30)) + "x,a\n"
    (tmp_path / "a.csv").write_text(data)
    *_, said = taken(tmp_path, Reading(types={"n": pa.int64()}), 20)
    place = "line 32" if counted else f"byte {data.index('x,a')}"
    assert said == [f"{wrong} ({place} of a.csv)"]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_place_in_a_json_array_is_a_row(tmp_path, indent):
    values = [{"text": "a"}, None, {"text": 5}]
    (tmp_path / "a.json").write_text(json.dumps(values, indent=indent))
    _, _, said = taken(tmp_path, Reading(kinds={"text": "text"}))
    assert said == [
        "row 2 of a.json must be a JSON object, not 'null'",
        "column 'text' is 5, not a text (row 3 of a.json)",
    ]


def test_declared_types_of_json(tmp_path):
    types = {
        "id": pa.string(), "t": pa.timestamp("us"), "f": pa.float32(), "s": pa.int8(),
        "d": pa.float64(), "l": pa.list_(pa.date32()), "v": pa.list_(pa.float32(), 2),
    }  # fmt: skip
    base = {"id": "x", "t": "2024-01-01T10:00:00", "f": 0.1, "s": 1.0, "d": 1, "l": ["2024-01-01"],
            "v": [1, 2]}  # fmt: skip
    odd = [
        {"id": 3}, {"id": {"a": 1.0}}, {"t": 5}, {"f": 16777217}, {"s": 300}, {"s": 1.5},
        {"s": "1"}, {"d": 2**53 + 1}, {"l": ["x"]}, {"v": [1]}, {"v": [1, "x"]}, {"s": True},
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text(lines(base, *({**base, **change} for change in odd)))
    schema, got, said = taken(tmp_path, Reading(types=types))
    assert schema == pa.schema(list(types.items()))
    assert got[0]["t"] == datetime(2024, 1, 1, 10)
    assert (got[0]["s"], got[0]["d"], got[0]["v"]) == (1, 1.0, [1, 2])
    assert got[0]["l"] == [date(2024, 1, 1)]
    assert [row["id"] for row in got[:3]] == ["x", "3", '{"a": 1.0}']
    assert [message.partition(", not")[0] for message in said] == [
        "column 't' is 5", "column 'f' is 16777217", "column 's' is 300", "column 's' is 1.5",
        "column 's' is \"1\"", "column 'd' is 9007199254740993",
        "column 'l' is [\"x\"]", "column 'v' is [1]", "column 'v' is [1, \"x\"]",
        "column 's' is true",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [(pa.decimal128(5, 2), 1.5, 1.555), (pa.date32(), "2024-02-29", "2023-02-29")],
)
def test_declared_types_of_json_are_cast_many_at_once(tmp_path, monkeypatch, kind, good, bad):
    cast, calls = json_values.cast_texts, []
    monkeypatch.setattr(
        json_values, "cast_texts", lambda texts, kind: calls.append(texts) or cast(texts, kind)
    )
    values = [good, None, True, bad, *[good] * 1000]
    (tmp_path / "a.jsonl").write_text(lines(*({"v": value} for value in values)))
    _, got, said = taken(tmp_path, Reading(types={"v": kind}))
    kept = pa.array([good, None, None, None, *[good] * 1000]).cast(kind)
    assert [row["v"] for row in got] == kept.to_pylist()
    assert [message.partition(", not")[0] for message in said] == [
        f"column 'v' is {json.dumps(value)}" for value in (True, bad)
    ]
    assert len(calls) < 50


def test_a_large_input_keeps_what_its_first_rows_did_not_show(tmp_path, monkeypatch, run):
    monkeypatch.setattr(jsonl, "SCANNED_BYTES", 1000)
    first = [{"text": "a", "v": i, "s": "x", "n": {"k": 1}} for i in range(2000)]
    late = [
        {"text": "b", "v": 2.50, "s": 5, "n": {"k": 1, "new": [2]}},
        {"text": "c", "later": {"deep": 1.10}},
        {"text": 7, "v": 1},
    ]
    data = lines(*first, *late).replace("2.5", "2.50").replace("1.1}", "1.10}")
    for keep in ("all", ["v"]):
        report, got, _ = run("a.jsonl", data, out=str(keep), output={"keep": keep})
        assert (report.done, report.dead, report.left_out) == (2002, 1, None)
        assert got[0]["_misfits"] is None
        assert (got[0]["v"], got[2000]["v"]) == (0, None)
        misfits = {"v": "2.50", "s": 5, "n": {"k": 1, "new": [2]}}
        if keep == ["v"]:
            misfits = {"v": "2.50"}
        assert json.loads(got[2000]["_misfits"].replace("2.50", '"2.50"')) == misfits
        assert got[2001]["_misfits"] == '{"later": {"deep": 1.10}}'


FLAGS = [(0.5, True), ([0.5, 2], [1.5, False]), ({"a": [0.5]}, {"a": [1.5, True]})]


@pytest.mark.parametrize(("number", "flag"), FLAGS)
def test_a_flag_among_fractions_is_no_number(tmp_path, monkeypatch, number, flag):
    """Arrow takes it for 0.0 or 1.0 where a fraction comes first."""
    (tmp_path / "a.jsonl").write_text(lines(*({"x": value} for value in (number, flag))))
    _, got, _ = taken(tmp_path, Reading())
    assert [json.loads(row["x"]) for row in got] == [number, flag]
    (tmp_path / "a.jsonl").write_text(lines({"x": 0.5}, {"x": True}))
    _, got, said = taken(tmp_path, Reading(types={"x": pa.float32()}))
    assert [row["x"] for row in got] == [0.5, None]
    assert len(said) == 1
    monkeypatch.setattr(jsonl, "SCANNED_BYTES", 10)
    monkeypatch.setattr(jsonl, "SAMPLED_ROWS", 2)
    (tmp_path / "a.jsonl").write_text(lines(*({"x": value} for value in (number, number, flag))))
    _, got, _ = taken(tmp_path, Reading())
    assert (got[0]["x"], got[2]["x"]) == (number, None)
    assert json.loads(got[2]["_misfits"]) == {"x": flag}


def test_keys_that_nothing_can_hold_are_said_over_the_whole_output(run, tmp_path, capsys):
    data = '{"text": "a", "v": 1, "v": 2}\n{"text": "b", "v": 3, "\\ud800": 1}\n' * 2
    report, got, _ = run("a.jsonl", data)
    assert [row["v"] for row in got] == [2, 3, 2, 3]
    assert report.left_out == {"v": 2, "?": 2}
    assert json.loads(report.to_json())["left_out"] == {"v": 2, "?": 2}
    assert "values of 'v' in 2 rows, '?' in 2 rows" in str(report)
    again, *_ = run("a.jsonl", None)
    assert (again.added["rows"], again.left_out) == (0, {"v": 2, "?": 2})
    assert "left_out" not in json.loads(dataclasses.replace(report, left_out=None).to_json())


@pytest.mark.parametrize("form", ["parquet", "arrow", "csv", "jsonl"])
def test_a_column_that_only_a_later_file_has_is_counted(tmp_path, monkeypatch, form):
    light.install(monkeypatch)

    def write(name, row):
        table, path = pa.Table.from_pylist([row, row]), tmp_path / "in" / f"{name}.{form}"
        if form == "parquet":
            pq.write_table(table, path)
        elif form == "arrow":
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as new:
                new.write_table(table)
        elif form == "csv":
            path.write_text(",".join(row) + "\n" + f"{','.join(row.values())}\n" * 2)
        else:
            path.write_text(lines(row, row))

    (tmp_path / "in").mkdir()
    write("a", {"text": "a", "v": "1"})
    job = {**light.job(tmp_path, []), "input": str(tmp_path / "in")}
    job["output"]["keep"] = ["text"]
    assert pipemill.run(**job).left_out is None
    write("b", {"v": "2", "text": "b", "new": "3"})
    report = pipemill.run(**job)
    assert (report.done, report.dead, report.left_out) == (4, 0, {"new": 2})


def test_a_key_that_the_task_reads_is_not_there_twice(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "text": "b"}\n{"text": "c", "text": "c"}\n')
    _, got, said = taken(tmp_path)
    assert [row["text"] for row in got] == [None, "c"]
    assert said == ["column 'text' is there twice (line 1 of a.jsonl)"]


def test_files_that_come_later_keep_the_types_that_were_planned(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text(lines({"text": "a", "v": 1, "s": "x"}))
    run("in", None)
    (tmp_path / "in/b.jsonl").write_text(
        lines({"text": "b", "v": 2.5, "s": "y"}, {"text": "c", "v": 2.0, "s": 5, "new": 1})
    )
    report, got, dead = run("in", None)
    assert [(row["text"], row["v"], row["s"]) for row in got] == [("a", 1, "x"), ("c", 2, "5")]
    assert [letter["message"].partition(" (line")[0] for letter in dead] == [
        "column 'v' is 2.5, not a whole number (int64)"
    ]
    assert report.left_out == {"new": 1}


@pytest.mark.parametrize("format", ["csv", "jsonl", "txt"])
def test_files_without_rows_and_bad_ones_may_come_later(run, tmp_path, format):
    good = {"csv": "text\na\n", "jsonl": lines({"text": "a"}), "txt": "a\n"}[format]
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/a.{format}").write_text(good)
    (tmp_path / f"in/b.{format}").write_text("")
    (tmp_path / f"in/c.{format}.gz").write_bytes(gzip.compress(b""))
    for _ in range(2):
        report, *_ = run("in", None)
        assert (report.rows, report.dead) == (1, 0)
    (tmp_path / f"in/d.{format}.gz").write_text("<html>")
    for _ in range(2):
        report, _, dead = run("in", None)
        assert (report.rows, report.dead) == (2, 1)
    assert "Not a gzipped file" in dead[0]["message"]


@pytest.mark.parametrize("format", ["csv", "jsonl", "text", "parquet", "arrow"])
def test_sources_go_to_workers(format):
    reading = Reading(kinds={"text": "text"}, types={"n": pa.int8()}, known=("text", "n"))
    source = open_source(format, {}, pa.schema([("text", pa.string())]), reading)
    assert pickle.loads(pickle.dumps(source)) == source


def test_input_schema_is_checked_before_anything_costs(run, tmp_path):
    data = lines({"text": "a", "v": 1})
    for schema, message in [
        (
            {"vv": "int64"},
            "input.schema names 'vv', which the input does not have; did you mean 'v'",
        ),
        ({"v": "int46"}, "input.schema.v: 'int46' is not an Arrow type"),
        ({"text": "int64"}, "column 'text' is int64, but lengths reads text as 'text'"),
        ({}, "input.schema must name at least one column"),
    ]:
        with pytest.raises(ConfigError, match=message):
            run("a.jsonl", data, {"schema": schema})
    with pytest.raises(
        ConfigError, match="'input.encoding' in the job: must be the name of a text"
    ):
        run("a.jsonl", data, {"encoding": "latn-1"})
    for encoding in ("hex", "rot13", "nope"):
        with pytest.raises(ConfigError, match="must be the name of a text encoding"):
            run("a.jsonl", data, {"encoding": encoding})
    pq.write_table(pa.table({"text": ["a"], "l": [[1]]}), tmp_path / "b.parquet")
    with pytest.raises(
        ConfigError, match="encoding applies to jsonl, csv and text; the input is p"
    ):
        run("b.parquet", None, {"encoding": "latin-1"})
    with pytest.raises(ConfigError, match=r"schema.l: the input's column is list.* cast to int64"):
        run("b.parquet", None, {"schema": {"l": "int64"}})
    with pytest.raises(ConfigError, match="schema applies to .*; the type of 'path' can't be"):
        run("b.parquet", None, {"schema": {"path": "string"}, "format": "files"})


def test_a_schema_and_an_encoding_are_the_jobs_and_old_outputs_have_none(run, tmp_path):
    _, got, _ = run("a.csv", "text,n\na,1\n", {"schema": {"n": "int64"}})
    assert got[0]["n"] == 1
    with pytest.raises(ConfigError, match="another job: input.schema"):
        run("a.csv", None)
    with pytest.raises(ConfigError, match="another job: input.encoding"):
        run("a.csv", None, {"schema": {"n": "int64"}, "encoding": "latin-1"})
    decides = json.loads((tmp_path / "out/_pipemill/job.json").read_text())["decides"]
    assert "input.encoding" not in decides


@pytest.mark.parametrize("delimiter", [";", "|", "\t", "\\t"])
def test_fields_may_be_divided_by_another_letter(run, delimiter):
    mark = "\t" if delimiter == "\\t" else delimiter
    data = f'text{mark}n\n"a{mark} b, c"{mark}1\nd{mark}2,5\n'
    _, got, _ = run("a.csv", data, {"delimiter": delimiter})
    assert [(row["text"], row["n"]) for row in got] == [(f"a{mark} b, c", "1"), ("d", "2,5")]
    with pytest.raises(ConfigError, match=r"another job: input\.delimiter"):
        run("a.csv", None)


def test_how_csv_is_divided_is_checked(run):
    for wrong in ("", ";;", '"', "\n", "ä", 5):
        with pytest.raises(ConfigError, match=r"'input\.delimiter' in the job: must be "):
            run("a.csv", "text\na\n", {"delimiter": wrong})
    for key, value in (("delimiter", ";"), ("quotes", False)):
        with pytest.raises(ConfigError, match=f"input.{key} applies to CSV; the input is jsonl"):
            run("a.jsonl", '{"text": "a"}\n', {key: value})
    run("b.csv", 'text,n\n"a,1\n', {"quotes": False})
    with pytest.raises(ConfigError, match=r"another job: input\.quotes \(False then, True now\)"):
        run("b.csv", None)


def test_declared_types_of_parquet_and_arrow(run, tmp_path):
    table = pa.table({"text": ["a", "b", "c"], "n": ["1", "x", "3"], "m": [1.0, 2.0, 2.5]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        wanted = {"schema": {"n": "int8", "m": "int64"}}
        report, _, dead = run(name, None, wanted, out=f"out of {name}", rows_per_part=2)
        got = ds.dataset(tmp_path / f"out of {name}").to_table()
        assert (report.done, got["n"].type, got["m"].to_pylist()) == (1, pa.int8(), [1])
        path = tmp_path / name
        assert [letter["message"] for letter in dead] == [
            f"column 'n' is \"x\", not a whole number (int8) (row 2 of {path})",
            f"column 'm' is 2.5, not a whole number (int64) (row 3 of {path})",
        ]


def test_a_text_of_numbers_is_refused_with_the_way_out(run):
    data = lines({"text": 5}, {"text": 42})
    with pytest.raises(ConfigError, match=r"column 'text' is int64.*schema: \{text: string\}"):
        run("a.jsonl", data)
    _, got, _ = run("a.jsonl", None, {"schema": {"text": "string"}})
    assert [row["text"] for row in got] == ["5", "42"]


def test_old_plans_of_csv_are_read_as_they_were_planned(tmp_path):
    (tmp_path / "a.csv").write_text("text,n,x,day\na,7,1.5,2024-01-01\nb,NA,9007199254740993,\n")
    made = plan(tmp_path)
    made.schema = pa.schema(
        [("text", pa.string()), ("n", pa.int64()), ("x", pa.float64()), ("day", pa.date32())]
    )
    assert rows(read(made, TEXT)) == [
        {"text": "a", "n": 7, "x": 1.5, "day": date(2024, 1, 1)},
        {"text": "b", "n": None, "x": 9007199254740992.0, "day": None},
    ]
