"""The rows that come with pipemill."""

import pyarrow.parquet as pq

import pipemill
from tests.support.sample_rows import make_rows


def test_the_sample_is_what_its_script_writes():
    table = pq.read_table(pipemill.sample())
    assert table.equals(make_rows())
    assert table.num_rows == 200
    rows = table.to_pylist()
    assert all(row["answer"] in row["text"] for row in rows)
    lengths = sorted(len(row["text"]) for row in rows)
    assert (lengths[0], lengths[-1]) == (49, 4234), "as the documentation says"
    assert len({row["topic"] for row in rows}) == 6
