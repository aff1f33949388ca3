import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.sources.split_ranges import (
    MOST_MEDIA_ROWS,
    SplitRange,
    choose_rows_per_split,
    cut_evenly,
)
from pipemill.jobs.output.split_plan import Plan, RowEstimate
from pipemill.jobs.planning.find_inputs import InputFile

from pipemill.errors import ConfigError

SCHEMA = pa.schema([("text", pa.string()), ("tags", pa.list_(pa.string()))])


@settings(deadline=None)
@given(st.lists(st.lists(st.none() | st.integers(1, 9), max_size=5), max_size=8))
def test_a_plan_survives_being_stored(rows):
    files = [InputFile(f"s3://b/{i}.parquet", 10 * i, f"v{i}") for i in range(len(rows))]
    plan = Plan("parquet", SCHEMA)
    for file, own in zip(files, rows, strict=True):
        plan.add(SplitRange(file, j, j + 1, r, tuple(files[: r or 0])) for j, r in enumerate(own))
    again = Plan.from_bytes(plan.to_bytes())
    assert again == plan
    assert [s.number for s in again.splits] == list(range(sum(map(len, rows))))
    names = [s.part for s in again.splits]
    assert names == sorted(names)
    assert len(set(names)) == len(names)


def test_new_files_become_new_splits_and_a_changed_one_is_named():
    a, b = InputFile("a.parquet", 10, "1"), InputFile("b.parquet", 20, "1")
    plan = Plan("parquet", SCHEMA)
    plan.add([SplitRange(a, 0, 5, 5)])
    assert plan.new_files([a, b]) == [b]
    assert plan.new_files([b]) == [b]
    with pytest.raises(ConfigError, match=r"a\.parquet has changed"):
        plan.new_files([InputFile("a.parquet", 10, "2")])
    # By another path, as through a link: its rows would be there twice.
    with pytest.raises(ConfigError, match=r"link/a\.parquet seems to be a\.parquet"):
        plan.new_files([InputFile("link/a.parquet", 10, "1")])
    assert plan.new_files([a, InputFile("copy.parquet", 10, "1")]), "both are there"


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_even_ranges_cover_everything_once(length, step):
    ranges = cut_evenly(length, step)
    assert [i for a, b in ranges for i in range(a, b)] == list(range(length))
    assert all(0 < b - a <= step for a, b in ranges)


def test_a_split_is_neither_tiny_nor_huge():
    assert choose_rows_per_split(100, 1000) == 64
    assert choose_rows_per_split(64_000, 1000) == 2000
    assert choose_rows_per_split(10**9, 1000) == 8192
    assert choose_rows_per_split(10**9, 2**20) == 64
    assert choose_rows_per_split(10, 10**12) == 1
    # Six books are six splits; sixty pictures are one.
    assert choose_rows_per_split(6, 2**20) == 1
    assert choose_rows_per_split(100, 2**18) == 4
    assert choose_rows_per_split(60, 2**18, MOST_MEDIA_ROWS) == 64


def test_rows_of_byte_ranges_are_estimated_from_those_seen():
    plan = Plan("jsonl", SCHEMA)
    file = InputFile("a.jsonl", 400, "1")
    plan.add(SplitRange(file, i, i + 100, None) for i in (0, 100, 200, 300))
    plan.add([SplitRange(InputFile("b.jsonl", 400, "1"), 0, 400, 7)])
    estimate = RowEstimate(plan.splits)
    assert estimate.total() == 7
    estimate.see(plan.splits[0], 25)
    estimate.see(plan.splits[-1], 7)
    assert estimate.total() == 107
