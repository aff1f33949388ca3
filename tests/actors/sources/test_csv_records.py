"""Where records of CSV start and stop is found without parsing most lines."""

from __future__ import annotations

import io

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pipemill.actors.sources.parsing.csv_records import find_record_offsets, find_records

PIECES = st.sampled_from(["a", ",", '"', '""', "\n", "\r\n", "\r", " ", "\0", "\xe9"])


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=20))
@example(["a", ",", '"', "\n", '"', "\n", "\n", "b", "\n"])
@example(["a", "\n", "\r", "\r", "\n", '"', "b", "\n"])
def test_they_are_those_that_parsing_finds(pieces):
    data = "".join(pieces).encode("latin-1")
    parsed = [(record.start, record.stop) for record in find_records(io.BytesIO(data), ",", 7)]
    assert list(find_record_offsets(io.BytesIO(data), ",", 7)) == parsed
