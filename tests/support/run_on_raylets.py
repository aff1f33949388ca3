"""A run over three raylets of which one dies in the middle and another joins; a line of JSON.

In a separate process: Ray's test cluster starts its own head.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.split_ranges import SplitRange
from pipemill.actors.storage.store import Store
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.execution.placement import run_splits
from pipemill.jobs.execution.split_work import SplitWork
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import list_files
from ray.cluster_utils import Cluster

from tests.support.lengths import Lengths

ROWS, PER_SPLIT = 180, 5
SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


class SlowLengths(Lengths):
    def regroup(self, rows, outputs):
        time.sleep(0.4)
        return super().regroup(rows, outputs)


@dataclass(frozen=True)
class LoadSlow:
    weights: bool = True

    def __call__(self) -> Stages:
        return Stages(SlowLengths(), {"text": "text"}, TokenBudget(100))


def lines(folder: str):
    texts = ["regroup" if n % 60 == 7 else f"row {n}" for n in range(ROWS)]
    pq.write_table(pa.table({"n": range(ROWS), "text": texts}, SCHEMA), f"{folder}/in.parquet")
    plan = Plan("parquet", SCHEMA)
    file = list_files(f"{folder}/in.parquet", "auto", {}, "/nowhere")[0][0]
    plan.add(SplitRange(file, i, i + PER_SPLIT, PER_SPLIT) for i in range(0, ROWS, PER_SPLIT))
    sink = PartSink(Store(f"{folder}/out"), ["n", "text"], "dead_letter")
    work = SplitWork(
        placement="fused",
        load=LoadSlow(),
        source=open_source("parquet", {}, SCHEMA),
        sink=sink,
        actors=ActorsSection(num_gpus=0, max=6),
    )
    yield from run_splits(work, plan.splits)


def main(folder: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    doomed = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    died = False
    errors, nodes = [], set()
    for number, line in enumerate(lines(folder)):
        errors += [line.error] if line.error else []
        nodes |= {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if number == 12 and not died:
            died = True
            cluster.remove_node(doomed, allow_graceful=False)
            cluster.add_node(num_cpus=1)
    parts = len(list(Path(folder, "out").glob("part-*")))
    print(json.dumps({"errors": errors, "nodes": len(nodes), "parts": parts}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
