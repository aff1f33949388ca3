"""Conditions on rows: as Python reads them, and never true of a null."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.compute.row_condition import RowCondition

VALUES = {"label": ["a", "b", "it's"], "score": [0.0, 0.5, 0.9], "n": [-1, 0, 7]}
TESTS = [
    "label == 'a'", "label != 'b'", 'label in ["a", "it\'s"]', "label not in ('a',)",
    "score > 0.5", "score <= 0.5", "0 < score < 0.9", "n == -1", "not n > 0", "n >= score",
]  # fmt: skip
conditions = st.recursive(
    st.sampled_from(TESTS),
    lambda inner: st.one_of(
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=4,
)
rows = st.lists(
    st.fixed_dictionaries({name: st.sampled_from(some) for name, some in VALUES.items()}),
    max_size=12,
)
SCHEMA = pa.schema([("label", pa.string()), ("score", pa.float32()), ("n", pa.int64())])


@settings(deadline=None)
@given(conditions, rows)
def test_it_is_true_where_python_says_so(text, rows):
    found = RowCondition(text).find_rows(pa.Table.from_pylist(rows, SCHEMA))
    # As float32, in which the column holds them.
    exact = pa.Table.from_pylist(rows, SCHEMA).to_pylist()
    assert found.tolist() == [i for i, row in enumerate(exact) if eval(text, {}, dict(row))]


NOT_IN_A_LIST = ["not label in ['a']", "not (label not in ['a'])", "not n in []"]


@pytest.mark.parametrize(
    "text", [*TESTS, *NOT_IN_A_LIST, "label is None", "not label is None", "n is not None"]
)
def test_only_is_none_is_true_of_a_null(text):
    table = pa.Table.from_pylist([{}], SCHEMA)
    assert RowCondition(text).find_rows(table).tolist() == ([0] if text == "label is None" else [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label = 'a'", "'label = 'a'' is not a condition: write columns"),
        ("", "is not a condition"),
        ("'a'", "names no column"),
        ("1 == 1", "names no column"),
        ("len(label) > 3", "holds 'len(label)', which is neither a column nor a value"),
        ("__import__('os').getpid() > 3", "neither a column nor a value"),
        ("score > 0.5 * 2", "holds '0.5 * 2'"),
        ("label in 'abc'", "a list must follow `in`"),
        ("label in ['a', 1]", "is not a condition"),
        ("label == {1: 2}", "is not a condition"),
        ("label is 'a'", "only None may follow `is`"),
        ("(" * 500 + "n" + ")" * 500, "is not a condition"),
        ("not " * 1000 + "n == 1", "is nested too deeply"),
        ("n == 1" + " or n == 1" * 20_000, "500 times at most, not 20,001 times"),
        ("label == None", "compares with None, which is never true: write `is None`"),
        ("None != label", "compares with None, which is never true: write `is None`"),
        ("label in ['a', None]", "has None in a list"),
        ("'a' in label", "a list must follow `in`"),
        ("n == 1" + "0" * 90, "is not a condition (Decimal precision"),
        ("`c d == 1", "is not a condition"),
        ("score > 1) or (score < 0", "is not a condition"),
        ("`` == 1", "is not a condition"),
        ("c d == 1", "write columns (`in backticks` if they are no plain words)"),
    ],
)
def test_what_is_no_condition_is_said(text, said):
    with pytest.raises(ValueError, match="condition|column|follow|None|nested") as error:
        RowCondition(text)
    assert said.replace("''", "'") in str(error.value).replace('"', "'").replace("''", "'")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lable == 'a'", "names 'lable', which is no column here: label, score, n"),
        ("label > 3", "CSV holds only texts, set input.schema: {label: int64}"),
        ("n > 1 and 1 < label", "'1 < label' can't be tested, in 'n > 1 and 1 < label': label is"),
        ("not n", "'not n' can't be tested: n is int64; only what is true or false"),
        ("n in ['x']", "can't be tested: n is int64"),
        ("score and n > 1", "can't be tested: score is float, n is int64"),
    ],
)
def test_columns_and_types_that_do_not_fit_are_said(text, said):
    with pytest.raises(ValueError, match="column|tested") as error:
        RowCondition(text).check(SCHEMA)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("u == 18446744073709551615", [0]),
        ("u in [18446744073709551615]", [0]),
        ("u > 5", [0]),
        ("u > n", [0]),
        ("n < 18446744073709551616", [0, 2]),
        ("n in [18446744073709551615, 3]", [2]),
        ("price > 1", [1]),
        ("price == n", [0]),
        ("view == 'a'", [0]),
        ("view in ['a']", [0]),
        ("nothing in ['a']", []),
        ("not nothing in ['a']", []),
    ],
)
def test_columns_and_numbers_of_any_size_are_compared(text, rows):
    table = pa.table(
        {
            "u": pa.array([2**64 - 1, 1, None], pa.uint64()),
            "n": pa.array([1, None, 3], pa.int32()),
            "price": pa.array([Decimal("1.00"), Decimal("2.50"), None], pa.decimal128(5, 2)),
            "view": pa.array(["a", "b", None], pa.string_view()),
            "nothing": pa.nulls(3),
        }
    )
    condition = RowCondition(text)
    condition.check(table.schema)
    assert condition.find_rows(table).tolist() == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("n < 1.5", [0, 3]),
        ("0.5 < n", [0, 2]),
        ("n != 1.0", [2, 3]),
        ("n > 9.3e18", []),
        ("n in [1.0, 9007199254740993]", [0]),
        ("n not in [1.5]", [0, 2, 3]),
        ("n == 9223372036854775807 and half < 3", [2]),
        ("n > score", [2]),
        ("score <= n", [0, 2]),
        ("n > half", [2]),
        ("score < 16777217", [0, 2, 3]),
        ("half >= 0.5", [0, 2, 3]),
        ("half in [2]", [2]),
        ("zero in [0]", [0, 1]),
        ("zero not in [-0.0, 1.5]", []),
        ("price in [1]", [2]),
        ("price in [1, 12345678901]", [2]),
        ("price > score", [0, 2]),
        ("tax == 0.35", [0]),
        ("0.35 < tax", [2]),
        ("tax in [0.35, 0.57]", [0, 2]),
        ("tax not in [0.35]", [2, 3]),
    ],
)
def test_whole_numbers_are_compared_with_fractions(text, rows):
    """Arrow gives up at whole numbers above 2**24, of which floats do not hold all."""
    table = pa.table(
        {
            "n": pa.array([1, None, 2**63 - 1, -1]),
            "score": pa.array([1, None, 0.5, 2], pa.float32()),
            "zero": [0.0, -0.0, None, 1.5],
            "half": pa.array(np.array([1, 0, 2, 3], np.float16)),
            "price": pa.array([Decimal("2.50"), None, Decimal(1), Decimal(0)], pa.decimal128(5, 2)),
            # Of which Arrow makes other floats than the nearest ones.
            "tax": [Decimal("0.35"), None, Decimal("0.57"), Decimal("-0.41")],
        }
    )
    condition = RowCondition(text)
    condition.check(table.schema)
    assert condition.find_rows(table).tolist() == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("day > '2024-02-29'", [2]),
        ("'2024-02-29' == day", [0]),
        ("day in ['2024-02-29', '2025-01-01']", [0, 2]),
        ("time >= '2024-02-29 12:00:00'", [0, 2]),
        ("time < '2025-01-01'", [0]),
        ("zone == '2024-02-29T13:00+01:00'", [0]),
    ],
)
def test_dates_and_times_are_compared_with_texts(text, rows):
    days = [dt.date(2024, 2, 29), None, dt.date(2025, 1, 1)]
    times = [dt.datetime(2024, 2, 29, 12), None, dt.datetime(2025, 1, 1)]
    zone = pa.array(times, pa.timestamp("us", "UTC"))
    table = pa.table({"day": days, "time": pa.array(times, pa.timestamp("ns")), "zone": zone})
    condition = RowCondition(text)
    condition.check(table.schema)
    assert condition.find_rows(table).tolist() == rows
    for wrong, said in (("day > '2024'", "a date as 2024-12-31"), ("zone > '2024-02-29'", "zone")):
        with pytest.raises(ValueError, match=f"is compared with .*: write .*{said}"):
            RowCondition(wrong).check(table.schema)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("`a.b` > 1", [1]),
        ("`c d` == 'it`s `n` x' and `a.b` == 1", [0]),
        ("`class` is None or `a.b` in [1]", [0, 1]),
        ('`it\'s "so"` == 5', [0]),
        ("`a.b` == n\n  and n < 2  # `one`", [0]),
        ("`a.b` == n \\\n  and n < 2", [0]),
        ("`e\u0301` == 1", [0]),
        ("n > 1\nor n == 1", [0, 1]),
        ("n > 1 # don't\nor `a.b` == 1 # can't", [0, 1]),
    ],
)
def test_a_column_of_any_name_is_named_in_backticks_and_lines_are_one_condition(text, rows):
    table = pa.table(
        {
            "a.b": [1, 2],
            "c d": ["it`s `n` x", "y"],
            "class": pa.nulls(2, pa.string()),
            'it\'s "so"': [5, 6],
            "e\u0301": [1, 2],
            "n": [1, 2],
        }
    )
    condition = RowCondition(text)
    condition.check(table.schema)
    assert condition.find_rows(table).tolist() == rows


def test_a_column_of_two_is_not_chosen():
    with pytest.raises(ValueError, match="names 'n', but two columns are called that"):
        RowCondition("n > 1").check(pa.schema([("n", pa.int64()), ("n", pa.string())]))
