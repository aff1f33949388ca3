"""Conditions on rows: as Python reads them, and never true of a null."""

from __future__ import annotations

from decimal import Decimal

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


def test_a_column_of_two_is_not_chosen():
    with pytest.raises(ValueError, match="names 'n', but two columns are called that"):
        RowCondition("n > 1").check(pa.schema([("n", pa.int64()), ("n", pa.string())]))
