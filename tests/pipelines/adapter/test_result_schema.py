"""Answers under the columns that a job declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pytest
from pipemill.pipelines.adapter.result_schema import as_columns, infer_result_schema

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


@dataclass
class Box:
    label: str
    corners: tuple[int, int]


class Span(NamedTuple):
    label: str
    corners: tuple[int, int]


@pytest.mark.parametrize("kind", [Box, Span])
def test_data_classes_and_named_tuples_are_mappings(kind):
    answers = [kind("a", (1, 2)), None, kind("b", (3, 4))]
    schema = infer_result_schema(answers)
    expected = [{"label": "a", "corners": [1, 2]}, None, {"label": "b", "corners": [3, 4]}]
    assert as_columns(answers, schema, sampled=True).column("result").to_pylist() == expected
    declared = pa.schema([("label", pa.string())])
    assert as_columns(answers[:1], declared, sampled=False).to_pylist() == [{"label": "a"}]


@pytest.mark.parametrize("answer", [{}, [{}], {"spans": [], "more": {}}])
def test_mappings_without_keys_show_no_columns(answer):
    with pytest.raises(ValueError, match=r"mappings without keys.* output\.schema"):
        infer_result_schema([answer, answer])


@pytest.mark.parametrize("answer", [2**70, "half \ud800"])
def test_answers_that_arrow_cannot_hold_ask_for_columns(answer):
    with pytest.raises(ValueError, match=r"declare the columns in output\.schema"):
        infer_result_schema([answer])
