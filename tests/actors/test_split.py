"""A split and its result travel to workers and back as they are."""

from __future__ import annotations

from pipemill.actors.split import Split
from pipemill.actors.split_result import SplitResult, results_from_table, results_to_table
from pipemill.actors.storage.listing import InputFile

FILES = (InputFile("a/é.png", 3, "1.5"), InputFile("a/2.png", 4, "2", (("day", "1"),)))


def test_a_split_is_the_same_on_a_worker():
    for split in (Split(3, "in.csv", 100, "etag", 5, 50), Split(0, "a", 7, "x", 0, 2, 2, FILES)):
        again = Split.from_json(split.to_json())
        assert (again, again.part) == (split, split.part)


def test_messages_name_the_range_of_a_split_that_has_an_end():
    assert Split(3, "in.csv", 100, "etag", 5, 50).place == "in.csv [5:50]"
    assert Split(3, "in.jsonl", 100, "etag", 0, -1).place == "in.jsonl"


def test_a_result_is_the_same_on_the_driver():
    split = Split(0, "in.parquet", 7, "x", 0, 2, 2)
    results = [
        SplitResult(split=split),
        SplitResult(split=split, error="no", fatal=True, cause="model"),
        SplitResult(split=split, rows=2, dead=1, work={"chunks": 2.0}, first_failures=("row 1",)),
        SplitResult(split=split, payload=b"batch"),
    ]
    assert results_from_table(results_to_table(results)) == results
