"""Jobs with many actors on a Ray of 1 and of 2 CPUs; what came of each as a line of JSON.

Run by test_cpus.py in a process of its own, because Ray starts once there for each size. The task
is a light one: what may hang is Ray's scheduling, and three models to load would take minutes.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass

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

from pipemill.errors import ConfigError
from tests.support.lengths import Lengths


@dataclass(frozen=True)
class LoadLengths:
    weights: bool = True

    def __call__(self) -> Stages:
        return Stages(Lengths(), {"text": "text"}, TokenBudget(100))


def run(folder: str, name: str, actors: dict) -> int:
    """Rows that came out."""
    schema = pa.schema([("text", pa.string())])
    plan = Plan("parquet", schema)
    files = [file(folder)]
    plan.add(SplitRange(files[0], i, i + 10, 10) for i in range(0, 200, 10))
    section = ActorsSection(**{"num_gpus": 0, **actors})
    work = SplitWork(
        placement="fused" if section.placement == "auto" else section.placement,
        load=LoadLengths(),
        source=open_source("parquet", {}, schema),
        sink=PartSink(Store(f"{folder}/{name}"), ["text"], "dead_letter"),
        actors=section,
    )
    return sum(result.rows for result in run_splits(work, plan.splits))


def file(folder: str):
    from pipemill.jobs.planning.find_inputs import list_files

    return list_files(f"{folder}/in.parquet", "auto", {}, "/nowhere")[0][0]


def main(folder: str, cases: dict[str, list[dict]]) -> None:
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(200)]}), f"{folder}/in.parquet")
    for cpus, sections in cases.items():
        ray.init(
            "local",
            num_cpus=int(cpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        for number, actors in enumerate(sections):
            try:
                said: dict[str, object] = {"rows": run(folder, f"{cpus}-{number}", actors)}
            except ConfigError as error:
                said = {"error": str(error)}
            print(json.dumps(said), flush=True)
        ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
