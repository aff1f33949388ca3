"""Actors that share a GPU whose memory runs out: fewer of them go on. Ray is said to have a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import ray
from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.split_ranges import SplitRange
from pipemill.actors.storage.store import Store
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.execution.placement import run_splits
from pipemill.jobs.execution.split_work import SplitWork
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import list_files
from pipemill.pipelines.loading.model import Model

from tests.support.crowded import MESSAGE, LoadCrowded

ROWS, PER_SPLIT = 80, 10
SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


def test_fewer_actors_share_the_gpu_until_model_and_rows_fit(tmp_path):
    """With four the model does not fit, with two a row does not, and one never does."""
    command = [sys.executable, "-m", __name__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    table = ds.dataset(tmp_path / "out").to_table().sort_by("n")
    assert table["n"].to_pylist() == [n for n in range(ROWS) if n != 57]
    (letter,) = ds.dataset(tmp_path / "out/_pipemill/dead-letter").to_table().to_pylist()
    assert (letter["n"], letter["error"]) == (57, "OutOfMemoryError")
    assert letter["message"] == MESSAGE
    said = [line for line in done.stderr.splitlines() if "the GPU's memory ran out" in line]
    assert [line.partition("with ")[2].partition(" (")[0] for line in said] == [
        "4 actors on it: going on with 2",
        "2 actors on it: going on with 1",
    ]
    # Beside it, Ray may say that what an actor computed will not end.
    assert "8" in done.stdout.splitlines(), "each split has one result"


def main(folder: Path) -> None:
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    texts = [f"text {n}" for n in range(ROWS)]
    texts[23], texts[57] = "needs 0.6", "needs 2"
    source = folder / "in.parquet"
    pq.write_table(pa.table({"n": range(ROWS), "text": texts}, schema=SCHEMA), source)
    file = list_files(str(source), "auto", {}, "/nowhere")[0][0]
    plan = Plan("parquet", SCHEMA)
    cuts = range(0, ROWS, PER_SPLIT)
    plan.add(SplitRange(file, i, i + PER_SPLIT, PER_SPLIT) for i in cuts)
    work = SplitWork(
        placement="fused",
        load=LoadCrowded(Model(path="", num_gpus=0.25), needs=0.4),  # type: ignore[arg-type]
        source=open_source("parquet", {}, SCHEMA),
        sink=PartSink(Store(str(folder / "out")), ["n", "text"], "dead_letter"),
        actors=ActorsSection(num_gpus=0.25, num_cpus=0.3),
    )
    results = list(run_splits(work, plan.splits))
    assert all(result.error is None for result in results), results
    print(len(results), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
