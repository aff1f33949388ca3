"""Which chunks are equal: all of their values, of any type, and nothing but equal."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipemill.actors.compute.deduplicate import deduplicate_chunks

TYPES = {
    "ids": (pa.list_(pa.int32()), st.lists(st.integers(0, 2), max_size=3)),
    "large ids": (pa.large_list(pa.int64()), st.lists(st.integers(0, 2), max_size=3)),
    "gaps": (pa.list_(pa.int64()), st.lists(st.none() | st.integers(0, 1), max_size=3)),
    "scores": (pa.list_(pa.float32()), st.lists(st.sampled_from([0.5, 1.0]), max_size=2)),
    "flags": (pa.list_(pa.bool_()), st.lists(st.booleans(), max_size=2)),
    "words": (pa.list_(pa.string()), st.lists(st.sampled_from(["a", "b", "ab"]), max_size=2)),
    "text": (pa.string(), st.sampled_from(["a", "ab", "b", "", "None"])),
    "bytes": (pa.large_binary(), st.sampled_from([b"a", b"ab", b"", b"\0"])),
    "number": (pa.int64(), st.integers(0, 1)),
    "size": (pa.float64(), st.sampled_from([0.5, 1.0])),
}


@st.composite
def chunk_lists(draw):
    names = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=3, unique=True))
    nulls = draw(st.booleans())
    rows = st.fixed_dictionaries(
        {name: (st.none() | TYPES[name][1]) if nulls else TYPES[name][1] for name in names}
    )
    type = pa.struct([(name, TYPES[name][0]) for name in names])
    return pa.array(draw(st.lists(rows, max_size=12)), type)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chunk_lists(), st.integers(0, 3))
def test_exactly_equal_chunks_are_repeats(chunks, skipped):
    chunks = chunks.slice(min(skipped, len(chunks)))
    firsts, copies = deduplicate_chunks(chunks)
    rows = [repr(row) for row in chunks.to_pylist()]
    assert copies.tolist() == [rows.index(row) for row in rows]
    assert firsts.tolist() == sorted({rows.index(row) for row in rows})
    assert firsts.dtype == copies.dtype == np.int64


@pytest.mark.parametrize("type", [pa.list_(pa.int32()), pa.list_(pa.float64())])
def test_long_lists_are_equal_only_as_a_whole(type):
    long = list(range(3000))
    lists = [long, long[:-1], [], [*long[:-1], 0], long, [], long[1:], long[:-1]]
    chunks = pa.array([{"ids": [9]}, *({"ids": one} for one in lists)], pa.struct([("ids", type)]))
    assert deduplicate_chunks(chunks.slice(1))[1].tolist() == [0, 1, 2, 3, 0, 2, 6, 1]


def test_what_was_cut_does_not_matter_and_zeros_of_two_signs_do():
    chunks = pa.array([{"size": 2, "lost": 0}, {"size": 2, "lost": 9}, {"size": 1, "lost": 0}])
    assert deduplicate_chunks(chunks)[1].tolist() == [0, 0, 2]
    zeros = pa.array([{"x": 0.0, "l": [0.0]}, {"x": -0.0, "l": [0.0]}, {"x": 0.0, "l": [-0.0]}])
    assert deduplicate_chunks(zeros)[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "pair",
    [
        [{"a": [1], "b": [2, 3]}, {"a": [1, 2], "b": [3]}],
        [{"a": b"x", "b": b"yz"}, {"a": b"xy", "b": b"z"}],
        [{"a": [], "b": [1]}, {"a": [1], "b": []}],
    ],
)
def test_values_do_not_run_into_each_other(pair):
    assert deduplicate_chunks(pa.array(pair))[1].tolist() == [0, 1]
