"""Files whose columns and types differ: one schema, and every value as it was."""

from __future__ import annotations

import datetime
import decimal
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.actors.sources.byte_ranges import SAMPLED_FILES
from pipemill.actors.sources.schemas.file_schemas import cast_rows
from pipemill.actors.sources.schemas.unify import (
    find_common_type,
    find_conflict,
    unify_columns,
)
from pipemill.actors.storage.input_file import InputFile
from pipemill.jobs.planning.columns import check_conflicts
from pipemill.jobs.rows.held_rows import check_writable

from pipemill.errors import ConfigError
from tests.support.splits import plan, read, rows

CENTS = pa.decimal128(15, 2)


def planned(folder, *columns):
    """The plan of files that each hold one of these arrays as column c, and a row number."""
    for number, values in enumerate(columns):
        table = pa.table({"i": [number] * len(values), "c": values})
        pq.write_table(table, folder / f"{number}.parquet")
    return plan(folder)


def coded(values, index=None):
    array = pa.array(values).dictionary_encode()
    return array.cast(pa.dictionary(index or pa.int32(), pa.string()))


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (pa.array(["a"]), coded(["b", None]), pa.string()),
        (coded(["b", None]), pa.array(["a"], pa.large_string()), pa.large_string()),
        (coded(["a"]), coded(["b"]), pa.dictionary(pa.int32(), pa.string())),
        (
            coded(["a"], pa.int8()),
            coded(["b"], pa.int16()),
            pa.dictionary(pa.int16(), pa.string()),
        ),
        (pa.array([["a"]]), pa.array([["b"]], pa.large_list(pa.string())), None),
        (pa.ListArray.from_arrays([0, 1], coded(["a"])), pa.array([["b"], None]), None),
        (pa.array([1], pa.int32()), pa.array([2**60]), pa.int64()),
        (pa.array([1], pa.int64()), pa.array([2], pa.uint64()), pa.int64()),
        (pa.array([1, 2**53]), pa.array([0.5]), pa.float64()),
        (pa.array([1], pa.int16()), pa.array([0.5], pa.float32()), pa.float64()),
        (pa.nulls(2), pa.array([3]), pa.int64()),
        (pa.array([[1, 2]], pa.list_(pa.int32(), 2)), pa.array([[1, 2, 3]]), None),
        (pa.array([{"x": 1}]), pa.array([{"y": "b", "x": 2}, None]), None),
        (pa.array([[{"x": 1}]]), pa.array([[{"x": 2, "y": ["b"]}]]), None),
        (
            pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
            pa.array([[("k", 2)]], pa.map_(pa.string(), pa.int64())),
            None,
        ),
        (
            pa.array([decimal.Decimal("1.5")], pa.decimal128(5, 2)),
            pa.array([decimal.Decimal("12345678.1234")], pa.decimal128(20, 4)),
            pa.decimal128(20, 4),
        ),
        (
            pa.array([decimal.Decimal("1.50")], pa.decimal128(5, 2)),
            pa.array([0.25]),
            pa.float64(),
        ),
        (
            pa.array([decimal.Decimal("1.50")], pa.decimal128(5, 2)),
            pa.array([2**63 - 1, None]),
            pa.decimal128(21, 2),
        ),
        (
            pa.array([[decimal.Decimal("1.50")]], pa.list_(pa.decimal128(5, 2))),
            pa.array([[2**31 - 1]], pa.list_(pa.int32())),
            None,
        ),
        (pa.array(["a"], pa.string_view()), pa.array(["b"]), pa.string()),
        (pa.array([["a"]], pa.list_(pa.string_view())), pa.array([["b"]]), None),
    ],
    ids=lambda value: str(getattr(value, "type", value)).replace(" ", ""),
)
def test_types_that_go_together_are_one_and_no_value_changes(tmp_path, one, other, kind):
    for pair in ([one, other], [other, one]):
        made = planned(tmp_path, *pair)
        batches = read(made)
        assert not any(batch.failures for batch in batches)
        (schema,) = {batch.rows.schema for batch in batches}
        assert schema == made.schema
        if kind is not None:
            assert schema.field("c").type == kind
        got = [row["c"] for row in rows(batches)]
        expected = [value for array in pair for value in array.to_pylist()]
        names = {name for v in got if isinstance(v, dict) for name in v}
        expected = [{n: v.get(n) for n in names} if isinstance(v, dict) else v for v in expected]
        if isinstance(got[0], list) and got[0] and isinstance(got[0][0], dict):
            expected = [[{"x": item["x"], "y": item.get("y")} for item in v] for v in expected]
        assert got == expected


def test_times_of_other_units_and_zones_are_the_same_instants(tmp_path):
    at = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    made = planned(
        tmp_path,
        pa.array([at], pa.timestamp("us", "UTC")),
        pa.array([at], pa.timestamp("ns", "Europe/Paris")),
        pa.array([at], pa.timestamp("ms", "America/New_York")),
    )
    assert made.schema.field("c").type == pa.timestamp("ns", "UTC")
    assert {row["c"] for row in rows(read(made))} == {at}


@pytest.mark.parametrize("statistics", [True, False])
def test_a_column_that_no_number_type_holds_unchanged_is_text(tmp_path, statistics):
    large = 2**53 + 1
    far = datetime.datetime(9999, 12, 31)
    one = {
        "n": pa.array([large]),
        "u": pa.array([2**63], pa.uint64()),
        "t": pa.array([far], pa.timestamp("us")),
        "d": pa.array([decimal.Decimal("1234567890123456.78")], pa.decimal128(30, 2)),
        "fits": pa.array([2**53]),
    }
    two = {
        "n": [0.5],
        "u": [-1],
        "t": pa.array([0], pa.timestamp("ns")),
        "d": [0.5],
        "fits": [1e300],
    }
    pq.write_table(pa.table(one), tmp_path / "1.parquet", write_statistics=statistics)
    pq.write_table(pa.table(two), tmp_path / "2.parquet", write_statistics=statistics)
    first, second = rows(read(plan(tmp_path)))
    assert first == {
        "n": str(large),
        "u": str(2**63),
        "t": "9999-12-31 00:00:00.000000",
        "d": "1234567890123456.78",
        "fits": 2.0**53,
    }
    assert (second["n"], second["u"], second["d"]) == ("0.5", "-1", "0.5")
    assert second["t"].startswith("1970-01-01 00:00:00.0")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.duration("s"), 2**50),  # as text it would be a number without a unit
        (pa.timestamp("us"), 2**63 - 1),  # "infinity", whose year Arrow can't write
    ],
)
def test_times_that_neither_a_unit_nor_text_holds_are_refused(tmp_path, kind, value):
    fine = pa.timestamp("ns") if pa.types.is_timestamp(kind) else pa.duration("ns")
    made = planned(tmp_path, pa.nulls(1), pa.array([0, value], kind), pa.array([5], fine))
    why = find_conflict(made.schema.field("c"))
    assert f"{kind} in {tmp_path}/1.parquet and {fine} in {tmp_path}/2.parquet" in why


def test_decimals_are_as_long_as_the_longest_number_however_many_files_there_are():
    kind = pa.decimal128(5, 2)
    for integer in (pa.int64(), pa.int32(), pa.int64()):
        kind = find_common_type(integer, kind)
    assert kind == pa.decimal128(21, 2)
    beside = [pa.struct({"a": one, "b": pa.decimal128(5, 2)}) for one in (pa.int32(), pa.int64())]
    assert find_common_type(*beside) == beside[1]


def test_columns_that_some_files_lack_are_null_there(tmp_path):
    pq.write_table(pa.table({"b": [1], "A": ["upper"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": ["lower"], "b": [2], "split": ["x"]}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"other": [True]}), tmp_path / "3.parquet")
    made = plan(tmp_path)
    assert made.schema.names == ["b", "A", "a", "split", "other"]
    assert rows(read(made)) == [
        {"b": 1, "A": "upper", "a": None, "split": None, "other": None},
        {"b": 2, "A": None, "a": "lower", "split": "x", "other": None},
        {"b": None, "A": None, "a": None, "split": None, "other": True},
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a"], [1]),
        ([True], [1]),
        ([{"x": 1}], ["a"]),
        ([{"x": 1}], [{"x": "a"}]),
        ([["a"]], ["a"]),
        ([datetime.datetime(2024, 1, 1)], ["a"]),
        (
            pa.array([decimal.Decimal(1)], pa.decimal256(76, 2)),
            pa.array([decimal.Decimal("0.25")], pa.decimal128(30, 25)),
        ),
    ],
)
def test_a_column_whose_types_can_not_be_one_is_refused_where_it_is_needed(tmp_path, one, other):
    made = planned(tmp_path, pa.array(one), pa.array(other))
    why = find_conflict(made.schema.field("c"))
    for number in range(2):
        kind = pq.read_schema(tmp_path / f"{number}.parquet").field("c").type
        assert f"{kind} in {tmp_path}/{number}.parquet" in why
    with pytest.raises(ConfigError, match=r"column 'c' is .*, or name the columns to keep without"):
        check_conflicts(made.schema, ["i"], ["i", "c"])
    with pytest.raises(ConfigError, match="with the other's type$"):
        check_conflicts(made.schema, ["c"], ["c"])
    check_conflicts(made.schema, ["i"], ["i"])
    made.schema = made.schema.remove(1)
    assert [row["i"] for row in rows(read(made))] == [0, 1]


@pytest.mark.parametrize("form", ["parquet", "without statistics", "arrow"])
@pytest.mark.parametrize(
    ("empty", "other"),
    [
        (pa.nulls(2, pa.float64()), ["a", None]),  # what pandas writes of texts that are missing
        (pa.array([], pa.int64()), ["a"]),
        (pa.nulls(2, pa.float64()), [["a"]]),
        (pa.nulls(2, pa.string()), [{"x": 1}]),
        (pa.nulls(1, pa.list_(pa.int8())), [1]),
        (pa.nulls(1, pa.dictionary(pa.int8(), pa.int64())), [True]),
        (pa.array([], pa.float64()), pa.nulls(2, pa.string())),
        # What pandas writes of times that are missing, beside times of a zone in a coarser unit.
        (pa.nulls(2, pa.timestamp("ns")), pa.array([1, None], pa.timestamp("ms", "UTC"))),
        (pa.nulls(1, pa.timestamp("us", "Europe/Berlin")), pa.array([1], pa.timestamp("s"))),
    ],
)
def test_a_column_without_values_goes_with_any_type(tmp_path, form, empty, other):
    for folder, columns in (("one", [empty, other]), ("two", [other, empty])):
        (tmp_path / folder).mkdir()
        for number, values in enumerate(columns):
            table = pa.table({"i": [number] * len(values), "c": values})
            path = tmp_path / folder / f"{number}.{form.split()[0]}"
            if form == "arrow":
                with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as new:
                    new.write_table(table)
            else:
                path = path.with_suffix(".parquet")
                pq.write_table(table, path, write_statistics=form == "parquet")
        made = plan(tmp_path / folder)
        batches = read(made)
        assert not any(batch.failures for batch in batches)
        values = [value for array in columns for value in pa.array(array).to_pylist()]
        assert [row["c"] for row in rows(batches)] == values


@pytest.mark.parametrize("narrow", [pa.float16(), pa.float32()])
def test_decimals_in_lists_and_structs_keep_their_digits_beside_narrow_fractions(narrow):
    money = pa.decimal128(10, 2)
    for one, other, common in (
        (pa.list_(money), pa.list_(narrow), pa.list_(pa.float64())),
        (
            pa.struct([("a", money), ("b", narrow)]),
            pa.struct([("a", narrow), ("b", narrow)]),
            pa.struct([("a", pa.float64()), ("b", pa.float64())]),
        ),
        (pa.list_(narrow), pa.list_(pa.null()), pa.list_(narrow)),
    ):
        assert find_common_type(one, other) == find_common_type(other, one) == common


@pytest.mark.parametrize(
    ("kind", "wide", "wrap"),
    [
        (CENTS, pa.float64(), lambda value: value),
        (pa.list_(CENTS), pa.list_(pa.float64()), lambda value: [value, None]),
        (
            pa.struct({"a": CENTS, "b": CENTS}),
            pa.struct({"a": pa.float64(), "b": CENTS}),
            lambda value: {"a": value, "b": decimal.Decimal("0.25")},
        ),
    ],
)
def test_a_decimal_becomes_the_nearest_float(kind, wide, wrap):
    money = [decimal.Decimal(value * 7919).scaleb(-2) for value in range(-500, 500)]
    values = pa.array([*map(wrap, money), None], kind)
    cast = cast_rows(pa.table({"c": values}), pa.schema({"c": wide}))
    assert cast["c"].to_pylist() == [*(wrap(float(value)) for value in money), None]


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string(), pa.decimal128(20, 2)])
def test_whole_decimals_become_any_number(kind):
    """In a file of very many, of which the types of some were looked at."""
    values = pa.array([decimal.Decimal("12.00"), None], CENTS)
    cast = cast_rows(pa.table({"c": values}), pa.schema({"c": kind}))
    assert [value and float(value) for value in cast["c"].to_pylist()] == [12.0, None]


def test_many_files_are_asked_for_values_at_once():
    """Each takes a store's time to answer, and all of them may be empty."""
    files = [InputFile(f"{number}.parquet", 1, "") for number in range(100)]
    schemas = [pa.schema([("c", pa.float64() if n else pa.string())]) for n in range(100)]
    several, asked = threading.Barrier(3), []

    def has_values(file, name):
        asked.append(file)
        if file in files[1:4]:
            several.wait(timeout=60)
        return file == files[0]

    made = unify_columns(files, schemas, lambda file, name: None, has_values)
    assert made.field("c").type == pa.string()
    assert sorted(map(files.index, asked)) == list(range(100))


def test_a_column_that_parquet_has_no_type_for_is_named():
    schema = pa.schema([("a", pa.string()), ("span", pa.month_day_nano_interval())])
    with pytest.raises(
        ConfigError, match=r"column 'span' is month_day_nano_interval.*output\.keep"
    ):
        check_writable(schema, "set output.keep")
    check_writable(schema.remove(1), "set output.keep")


def test_a_parquet_file_with_a_name_twice_is_one_dead_row_beside_others(tmp_path):
    planned(tmp_path, pa.array(["a"]))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["c", "c"])
    pq.write_table(twice, tmp_path / "1.parquet")
    good, bad = read(plan(tmp_path))
    assert good.rows.num_rows == 1
    assert "two columns named 'c'" in bad.failures[0].message


def test_an_encrypted_file_and_a_page_of_html_are_dead_rows_beside_others(tmp_path):
    planned(tmp_path, pa.array(["a"]))
    whole = (tmp_path / "0.parquet").read_bytes()
    (tmp_path / "1.parquet").write_bytes(b"PARE" + whole[4:-4] + b"PARE")
    (tmp_path / "2.parquet").write_bytes(b"<!doctype html><title>Sign in</title>")
    good, *bad = read(plan(tmp_path, limit=2))
    assert (good.rows.num_rows, len(bad)) == (1, 1)
    good, *bad = read(plan(tmp_path))
    assert len(bad) == 2
    for number, batch in enumerate(bad, 1):
        assert f"can't read {tmp_path}/{number}.parquet" in batch.failures[0].message


def test_some_of_many_files_from_the_first_to_the_last_show_the_columns(tmp_path, monkeypatch):
    # They are too large for a look at all.
    monkeypatch.setattr("pipemill.actors.sources.jsonl.SCANNED_BYTES", 0)
    for number in range(SAMPLED_FILES + 3):
        more = ', "late": 1' if number == SAMPLED_FILES + 2 else ""
        (tmp_path / f"{number:03}.jsonl").write_text(f'{{"i": {number}{more}}}\n')
    assert plan(tmp_path).schema.names[:2] == ["i", "late"]
