"""Arrow types as a config writes them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipemill.jobs.config.arrow_types import parse_schema

from pipemill.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("string", pa.string()),
        (" float32 ", pa.float32()),
        ("float", pa.float32()),
        ("double", pa.float64()),
        ("bool", pa.bool_()),
        ("binary", pa.binary()),
        ("timestamp[ms]", pa.timestamp("ms")),
        ("timestamp[us, tz=UTC]", pa.timestamp("us", "UTC")),
        ("timestamp[ns, Europe/Paris]", pa.timestamp("ns", "Europe/Paris")),
        ("struct<a: decimal128(38, 9)>", pa.struct({"a": pa.decimal128(38, 9)})),
        ("list<float32>", pa.list_(pa.float32())),
        ("list<element: float>", pa.list_(pa.float32())),
        ("list<list<int64>>", pa.list_(pa.list_(pa.int64()))),
        ("fixed_size_list<float32>[3]", pa.list_(pa.float32(), 3)),
        ("struct<a: string, b: int32>", pa.struct({"a": pa.string(), "b": pa.int32()})),
        (
            "list<struct<label: string, box: struct<x: int32, y: list<double>>>>",
            pa.list_(
                pa.struct(
                    {
                        "label": pa.string(),
                        "box": pa.struct({"x": pa.int32(), "y": pa.list_(pa.float64())}),
                    }
                )
            ),
        ),
    ],
)
def test_types(text, kind):
    assert parse_schema({"a": text}) == pa.schema([("a", kind)])


@pytest.mark.parametrize(
    "text",
    ["strng", "", "list", "list<>", "list<string", "list<string>>", "struct<a>", "struct<>",
     "struct<: string>", "struct<a: string, a: string>", "map<string, string>",
     "timestamp[x, UTC]", "decimal128(99, 1)", "fixed_size_list<float32>",
     "fixed_size_list<float32>[x]", "lst<string>"],
)  # fmt: skip
def test_a_text_that_is_no_type_is_a_message(text):
    with pytest.raises(
        ConfigError, match=r"output\.schema\.a: .* is not an Arrow type; examples are string"
    ):
        parse_schema({"a": text})


def test_no_columns_at_all():
    with pytest.raises(ConfigError, match=r"output\.schema must name at least one column"):
        parse_schema({})


plain = st.sampled_from([pa.string(), pa.int64(), pa.float32(), pa.bool_(), pa.binary()])
types = st.recursive(
    plain,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(lambda kind: pa.list_(kind, 4)),
        st.dictionaries(st.sampled_from(["a", "b c", "d"]), inner, min_size=1).map(pa.struct),
    ),
    max_leaves=6,
)


@given(kind=types)
def test_arrow_reads_what_arrow_writes(kind):
    assert parse_schema({"x": str(kind)}).field("x").type == kind
