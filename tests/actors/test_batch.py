"""What a split counts, and what a driver adds up."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from pipemill.actors.batch import Batch, add_counts, left_out


def test_keys_that_are_names_of_things_do_not_grow_with_the_rows():
    """As in {"text": …, "user 123": …}, of which no column holds the second."""
    totals: Counter[str] = Counter()
    for split in range(50):
        batch = Batch(pa.table({}))
        batch.count_left_out({"often": 1000, **{f"user {split} {n}": 2 for n in range(1000)}})
        found = left_out(batch.stats)
        assert len(found) <= 101
        assert (found["often"], sum(found.values())) == (1000, 3000)
        add_counts(totals, {"rows": 1000, **batch.stats})
    found = left_out(totals)
    assert len(found) <= 1000
    assert (totals["rows"], found["often"]) == (50_000, 50_000)
    assert sum(found.values()) == 50 * 3000
    add_counts(totals, {"rows": 1, "budget_2048": 1})
    assert totals["budget_2048"] == 1
