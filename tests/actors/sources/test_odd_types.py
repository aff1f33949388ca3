"""Columns of types that few files have: kept as they are, or refused before the run."""

from __future__ import annotations

import json
from datetime import datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from pipemill.actors.sources.reading import Reading

import pipemill
from pipemill.errors import ConfigError
from tests.support import light
from tests.support.splits import plan, read

TEXTS = ["one", "two words", "three"]
A, B = b"a" * 16, b"b" * 16
UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([A, None, B], pa.binary(16)))
NOT_NULL = pa.struct([pa.field("a", pa.int64(), nullable=False)])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a job without a model over the files in a folder; returns its report and rows."""
    light.install(monkeypatch)
    (tmp_path / "in").mkdir()

    def run(**more):
        rows = {"path": str(tmp_path / "in"), **more}
        report = pipemill.run({**light.job(tmp_path, []), "input": rows})
        return report, pipemill.read(str(tmp_path / "out")).to_table()

    return run


def write_arrow(path, column):
    table = pa.table({"text": TEXTS, "odd": column})
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)


@pytest.mark.parametrize(
    ("odd", "kept"),
    [
        (pa.StructArray.from_arrays([UUIDS], ["u"]), [{"u": A}, {"u": None}, {"u": B}]),
        (pa.ListArray.from_arrays([0, 1, 1, 3], UUIDS), [[A], [], [None, B]]),
        (
            pa.DictionaryArray.from_arrays(pa.array([0, None, 1]), pa.array([["a"], ["b"]])),
            [["a"], None, ["b"]],
        ),
        (
            pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array([{"a": 1}, {"a": 2}])),
            [{"a": 1}, {"a": 2}, {"a": 1}],
        ),
        (pa.array([[], None, []], pa.list_(pa.int64(), 0)), [[], None, []]),
    ],
    ids=["uuid in a struct", "uuids in lists", "lists by number", "structs by number", "no items"],
)
def test_an_odd_type_is_kept(run, tmp_path, odd, kept):
    write_arrow(tmp_path / "in/a.arrow", odd)
    report, rows = run()
    assert (report.done, report.dead) == (3, 0)
    assert rows["odd"].to_pylist() == kept


@pytest.mark.parametrize(
    "odd",
    [
        pa.UnionArray.from_sparse(
            pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
        ),
        pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval()),
    ],
    ids=["union", "interval"],
)
def test_a_type_that_parquet_lacks_is_refused(run, tmp_path, odd):
    write_arrow(tmp_path / "in/a.arrow", odd)
    with pytest.raises(ConfigError, match=r"column 'odd' is .*which Parquet can't hold"):
        run()


def test_rows_in_python_that_parquet_can_not_be_read_with_are_refused(tmp_path, monkeypatch):
    light.install(monkeypatch)
    odd: object = 1
    for _ in range(60):
        odd = [odd]
    job = {**light.job(tmp_path, []), "input": [{"text": "one", "odd": odd}]}
    with pytest.raises(ConfigError, match=r"column 'odd' is list<.*which Parquet can't hold"):
        pipemill.run(**job)


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl"])
@pytest.mark.parametrize("declared", [None, {"text": "string"}])
def test_rows_of_a_file_without_the_column_that_is_read_say_so(run, tmp_path, suffix, declared):
    for name, column in (("a", "text"), ("b", "body")):
        path, rows = tmp_path / f"in/{name}.{suffix}", [{column: text, "n": 1} for text in TEXTS]
        table = pa.Table.from_pylist(rows)
        if suffix == "parquet":
            pq.write_table(table, path)
        elif suffix == "arrow":
            feather.write_feather(table, path)
        else:
            path.write_text("\n".join(map(json.dumps, rows)))
    report, _ = run(schema=declared)
    assert (report.done, report.dead) == (3, 3)
    letters = pipemill.read(str(tmp_path / "out"), dead_letters=True).to_table()
    why = f"there is no column 'text' in {path} (columns: body, n)"
    assert letters["message"].to_pylist() == [why] * 3


def test_a_file_may_lack_what_is_never_null_in_another(run, tmp_path):
    odd = pa.array([{"a": 1}] * 3, NOT_NULL)
    pq.write_table(pa.table({"text": TEXTS, "odd": odd}), tmp_path / "in/a.parquet")
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in/b.parquet")
    report, rows = run()
    assert report.done == 6
    assert rows["odd"].to_pylist() == [{"a": 1}] * 3 + [None] * 3


def test_a_category_of_polars_is_one_of_plain_texts(run, tmp_path):
    """Arrow can't decode a dictionary of texts in views, as polars writes them."""
    texts = pa.array(["a", None, "b"]).cast(pa.string_view())
    odd = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.uint32()), texts)
    table = pa.table({"text": odd, "odd": odd, "l": pa.ListArray.from_arrays([0, 1, 2, 3], odd)})
    with pa.ipc.new_file(tmp_path / "in/a.arrow", table.schema) as writer:
        writer.write_table(table)
    report, rows = run()
    assert (report.done, report.dead) == (2, 1)
    assert rows["odd"].to_pylist() == ["a", "b"]
    assert rows["l"].to_pylist() == [["a"], ["b"]]


def test_times_of_spark_before_1677_and_after_2262_stay(run, tmp_path):
    times = [datetime(9999, 12, 31), datetime(1, 1, 1), datetime(2024, 1, 1, 1, 1, 1, 999999)]
    table = pa.table({"text": TEXTS, "t": times, "l": [[time] for time in times]})
    path = tmp_path / "in/a.parquet"
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert pq.read_schema(path).field("t").type == pa.timestamp("ns")
    report, rows = run()
    assert report.done == 3
    assert (rows["t"].to_pylist(), rows["l"].to_pylist()) == (times, [[time] for time in times])


def test_times_that_python_has_not(run, tmp_path):
    times = [8 * 10**17, -8 * 10**17, 0]  # of microseconds: 25,000 years
    for name, unit in (("a", "us"), ("b", "ns")):
        column = pa.array(times, pa.timestamp(unit))
        pq.write_table(pa.table({"text": TEXTS, "odd": column}), tmp_path / f"in/{name}.parquet")
    report, rows = run()
    assert report.done == 6
    # Nanoseconds would not hold the times of the other file.
    assert rows["odd"].type == pa.string()


@pytest.mark.parametrize("levels", [33, 60, 150])
def test_json_that_is_nested_deeply_is_text(run, tmp_path, levels):
    nested = "[" * levels + "1" + "]" * levels
    (tmp_path / "in/a.jsonl").write_text(f'{{"text": "one", "odd": {nested}}}\n{{"text": "two"}}\n')
    report, rows = run()
    assert report.done == 2
    assert rows["odd"].to_pylist() == [nested, None]


@pytest.mark.parametrize("before", ["", "\n"])
def test_a_whole_number_of_thousands_of_digits_is_kept(run, tmp_path, before):
    """Python refuses to make one. before: what makes the file one of objects over several lines."""
    long = "9" * 5000
    (tmp_path / "in/a.json").write_text(
        f'{{"text": "one",{before} "odd": -{long}}}\n{{"text": "two", "odd": 1}}\n'
    )
    report, rows = run()
    assert report.done == 2
    assert rows["odd"].to_pylist() == [f"-{long}", "1"]
    assert json.loads(rows["odd"][1].as_py()) == 1


NOT_UTF8 = pa.array([b"a", b"\xff\xfe", b"c"])
NOT_UTF8 = pa.Array.from_buffers(pa.string(), 3, NOT_UTF8.buffers())
# Entries are numbered as by pandas, which Parquet has not.
IN_DICTIONARY = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int8()), NOT_UTF8)


@pytest.mark.parametrize(
    ("suffix", "odd"),
    [
        ("parquet", NOT_UTF8),
        ("parquet", pa.ListArray.from_arrays([0, 1, 2, 3], NOT_UTF8)),
        ("arrow", NOT_UTF8),
        ("arrow", pa.ListArray.from_arrays([0, 1, 2, 3], NOT_UTF8)),
        ("arrow", IN_DICTIONARY),
        ("parquet", IN_DICTIONARY),
        ("parquet", pa.ListArray.from_arrays([0, 1, 2, 3], IN_DICTIONARY)),
        ("arrow", pa.StructArray.from_arrays([IN_DICTIONARY], ["a"])),
    ],
    ids="parquet parquet-list arrow arrow-list category parquet-category in-list in-struct".split(),
)
def test_a_text_that_is_not_utf8_is_a_dead_letter(run, tmp_path, suffix, odd):
    if suffix == "arrow":
        write_arrow(tmp_path / "in/a.arrow", odd)
    else:
        pq.write_table(pa.table({"text": TEXTS, "odd": odd}), tmp_path / "in/a.parquet")
    report, rows = run()
    assert (report.done, report.dead) == (2, 1)
    rows.validate(full=True)
    letters = pipemill.read(str(tmp_path / "out"), dead_letters=True).to_table()
    letters.validate(full=True)
    (letter,) = letters.to_pylist()
    assert (letter["row"], letter["stage"]) == (1, "read")
    assert "column 'odd'" in letter["message"]
    assert "not UTF-8" in letter["message"]


def test_a_number_of_csv_may_have_thousands_of_digits(tmp_path):
    digits = "0" * 5000
    (tmp_path / "a.csv").write_text(f"n\n{digits}7\n1{digits}\n9007199254740993\n 8\n")
    reading = Reading(types={"n": pa.float64()})
    (batch,) = read(plan(tmp_path, reading=reading), reading)
    assert batch.rows["n"].to_pylist()[0::3] == [7.0, 8.0]
    assert sorted(batch.failures) == [1, 2]


SECONDS = pa.timestamp("s", "UTC")


@pytest.mark.parametrize(
    ("odd", "dead"),
    [
        (pa.array([1, 2**55, None], SECONDS), 1),
        (pa.array([[{"t": 1}], [{"t": 2**55}], []], pa.list_(pa.struct([("t", SECONDS)]))), 1),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["x", None])), 0),
    ],
)
def test_values_that_parquet_cannot_hold_cost_their_row_at_most(run, tmp_path, odd, dead):
    write_arrow(tmp_path / "in/a.arrow", odd)
    report, rows = run()
    assert (report.done, report.dead) == (3 - dead, dead)
    kept = [n for n in range(3) if not (dead and n == 1)]
    assert rows["odd"].to_pylist() == odd.take(pa.array(kept)).to_pylist()


def kept_of(rows):
    """The values that were kept, by the text of their row."""
    return {row["text"]: row["odd"] for row in rows.select(["text", "odd"]).to_pylist()}


NINES = "9" * 39  # of which Arrow makes a negative decimal of 128 bits


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("kind", "values", "kept"),
    [
        ("decimal128(5, 2)", ["999.99", "99999", "1e3", "-1000"], [Decimal("999.99")]),
        ("decimal128(38, 0)", ["9" * 38, NINES], [Decimal("9" * 38)]),
        ("decimal256(50, 2)", ["1.5", "1.555"], [Decimal("1.50")]),
        ("decimal256(50, 0)", ["7", str(2**256 + 5), "1" + "0" * 256], [Decimal(7)]),
        ("decimal256(76, 74)", ["1." + "0" * 74, f"1.{2**256}"], [Decimal("1." + "0" * 74)]),
        ("float16", ["1.5", "70000", "2049"], [1.5]),
        ("float32", ["0.5", "16777217"], [0.5]),
        (
            "time64[us]",
            ['"10:00:00.5"', '"10:00:00.1234567"', "10", '"10"'],
            [time(10, 0, 0, 500_000)],
        ),
        ("duration[s]", ["5", "1.5"], [timedelta(seconds=5)]),
        ("string_view", ['"a"'], ["a"]),
    ],
)
def test_numbers_and_times_fit_their_declared_type_or_cost_their_row(
    run, tmp_path, suffix, kind, values, kept
):
    path, texts = tmp_path / f"in/a.{suffix}", [str(i) for i in range(len(values))]
    plain = [value.strip('"') for value in values]
    if suffix == "csv":
        rows = "".join(f"{text},{value}\n" for text, value in zip(texts, plain, strict=True))
        path.write_text(f"text,odd\n{rows}")
    elif suffix == "jsonl":
        pairs = zip(texts, values, strict=True)
        path.write_text("".join(f'{{"text": "{t}", "odd": {value}}}\n' for t, value in pairs))
    else:
        pq.write_table(pa.table({"text": texts, "odd": plain}), path)
    report, rows = run(schema={"odd": kind})
    assert kept_of(rows) == {str(i): value for i, value in enumerate(kept)}
    assert report.dead == len(values) - len(kept)


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        (pa.array([1, 100, -5, None]), "decimal128(4, 2)", [Decimal(1), Decimal(-5), None]),
        (pa.array([0.25, 0.125, float("nan")]), "decimal128(4, 2)", [Decimal("0.25")]),
        (
            pa.array([0.1 + 0.2, 1e5 - 0.01, 0.301]),
            "decimal128(8, 2)",
            [Decimal("0.30"), Decimal("99999.99")],
        ),
        # Of 0.35 and 0.57 as decimals Arrow makes other floats.
        (pa.array([0.35, 0.57, -0.0]), "decimal128(4, 2)", [Decimal("0.35"), Decimal("0.57"), 0]),
        (pa.array([0.1, 1e4], pa.float32()), "decimal128(3, 1)", [Decimal("0.1")]),
        (pa.array([Decimal("-56910.09"), None]), "float64", [-56910.09, None]),
        (pa.array([Decimal("0.5"), Decimal(10) ** 40]), "float32", [0.5]),
        # A category of pandas, and bytes that are not noted as text.
        (pa.array(["5", NINES, None]).dictionary_encode(), "decimal128(38, 0)", [Decimal(5), None]),
        (pa.array([b"5", NINES.encode(), b"\xff"]), "decimal128(38, 0)", [Decimal(5)]),
        (pa.array([b"1.5", b"16777217"]), "float32", [1.5]),
        (pa.array(["1.5", "16777217"]).dictionary_encode(), "float32", [1.5]),
        (pa.array(["10:00", "x"]).dictionary_encode(), "time32[s]", [time(10)]),
        (pa.array([b"a", b"\xff"]), "string", ["a"]),
        (pa.array(["a", None]).dictionary_encode(), "binary", [b"a", None]),
        (pa.array(["10:00", None], pa.large_string()), "time32[s]", [time(10), None]),
        (pa.array([1.0, 1e300, float("inf")]), "float32", [1.0, float("inf")]),
        (pa.array([1, 0, 2]), "bool", [True, False]),
        (pa.array([1.0, 0.5]), "bool", [True]),
        (pa.array([2048, 2049, 99999]), "float16", [2048.0]),
        (pa.array([2.0**53 + 2, 0.5]), "int64", [2**53 + 2]),
    ],
)
def test_numbers_of_parquet_fit_their_declared_type_or_cost_their_row(
    run, tmp_path, values, kind, kept
):
    texts = [str(i) for i in range(len(values))]
    pq.write_table(pa.table({"text": texts, "odd": values}), tmp_path / "in/a.parquet")
    report, rows = run(schema={"odd": kind})
    assert rows["odd"].to_pylist() == kept
    assert report.dead == len(values) - len(kept)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_the_letter_of_a_value_that_does_not_fit_keeps_the_others(run, tmp_path, suffix):
    for name, texts, numbers in (
        ("a", ["a"], [[0.5]]),
        ("b", ["b", "c", "d"], [[1], [2**53 + 1], None]),  # floats beside those of the other file
    ):
        table = pa.table({"text": texts, "odd": numbers})
        path = tmp_path / f"in/{name}.{suffix}"
        if suffix == "parquet":
            pq.write_table(table, path)
        else:
            with pa.ipc.new_file(str(path), table.schema) as file:
                file.write_table(table)
    report, rows = run()
    assert (report.dead, rows["text"].to_pylist()) == (1, ["a", "b", "d"])
    dead = pipemill.read(str(tmp_path / "out"), dead_letters=True).to_table().to_pylist()
    assert [(row["text"], row["odd"]) for row in dead] == [("c", None)]
    assert "column 'odd'" in dead[0]["message"]
