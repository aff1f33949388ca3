"""Which rows a graph in int8 takes its scales from, where files of the input change."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pipemill.actors.sources.split_ranges import SplitRange
from pipemill.actors.storage.input_file import InputFile
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.build_load import _are_examples_replaced


@pytest.mark.parametrize(("changed", "rows", "replaces"), [
    (None, 100, False), (0, 100, True), (2, 100, True), (3, 100, False), (3, None, True),
])  # fmt: skip
def test_a_graph_has_other_scales_if_the_first_300_rows_changed(changed, rows, replaces):
    plan = Plan("parquet", pa.schema([]))
    files = [InputFile(f"/in/{i}.parquet", 10, "1") for i in range(5)]
    plan.add(SplitRange(file, 0, 100, rows) for file in files)
    plan.replan(
        lambda split: split.number == changed,
        [SplitRange(InputFile("/in/new.parquet", 10, "2"), 0, 100, rows)],
    )
    assert _are_examples_replaced(plan) == replaces
