"""Answers under the columns that a job declares."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pipemill.pipelines.adapter.result_schema import as_columns

POINT = pa.struct([("x", pa.int64()), ("y", pa.int64())])


def test_a_declared_struct_is_a_choice_of_names():
    schema = pa.schema([("best", pa.struct([("x", pa.int64()), ("z", pa.int64())]))])
    answers = [{"best": {"x": 1, "y": 2}}, {"best": None}, {"best": {}}]
    table = as_columns(answers, schema, sampled=False)
    empty = {"x": None, "z": None}
    assert table.to_pylist() == [{"best": {"x": 1, "z": None}}, {"best": None}, {"best": empty}]


@pytest.mark.parametrize(
    ("type", "value"),
    [
        (POINT, {"left": 1, "top": 2}),
        (pa.list_(POINT), [{"x": 1}, {"left": 1, "top": 2}]),
        (pa.list_(POINT, 2), [{"x": 1}, {"left": 1, "top": 2}]),
    ],
)
def test_a_declared_struct_with_other_names_is_no_null(type, value):
    with pytest.raises(ValueError, match="'best' of the answer has none of x, y, but left, top; "):
        as_columns([{"best": value}], pa.schema([("best", type)]), sampled=False)
