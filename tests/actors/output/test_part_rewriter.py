"""Answers to dead letters are put into their part; who comes late changes nothing."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.batch import Batch
from pipemill.actors.output.part_file import from_ranges, read_footer
from pipemill.actors.output.part_rewriter import ROW, PartRewriter
from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.output.state_table import dead_letters
from pipemill.actors.split import Split
from pipemill.actors.storage.store import Store

SPLIT = Split(0, "in.parquet", 100, "etag", 0, 4)


def _batch(rows: dict[str, list], answers: list[str | None], failed: list[int]) -> Batch:
    batch = Batch(pa.table(rows), results=pa.table({"answer": pa.array(answers, pa.string())}))
    for row in failed:
        batch.add_failure("expand", row, ValueError("bad"))
    return batch


def test_a_late_worker_neither_changes_answers_nor_makes_them_dead_again(tmp_path):
    store = Store(str(tmp_path))
    first = _batch({"text": list("abcd")}, [None, "B", None, None], [0, 2, 3])
    PartSink(store, ["text"], "skip").write(SPLIT, first)
    rewriter = PartRewriter(store, ["text"], "skip")
    rewriter.write(SPLIT, _batch({"text": ["a", "c", "d"], ROW: [0, 2, 3]}, ["A", "C", None], [2]))
    late = _batch({"text": ["a", "c", "d"], ROW: [0, 2, 3]}, [None, "late", "D"], [0])
    rewriter.write(SPLIT, late)
    data = store.read(SPLIT.part)
    assert pq.read_table(io.BytesIO(data))["answer"].to_pylist() == ["A", "B", "C", "D"]
    footer = read_footer(io.BytesIO(data))
    assert (footer.dead, list(from_ranges(footer.dead_rows))) == (0, [])
    assert not store.exists(dead_letters(store, SPLIT.part).name)
