"""Jobs with many actors on a Ray of one CPU; what came of each as a line of JSON.

A program that test_cpus.py runs, because it needs its own Ray. The task is a light one: what may
hang is Ray's scheduling, and three models to load would take minutes.
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
from tests.support.changeable import Changeable
from tests.support.lengths import Lengths


@dataclass(frozen=True)
class LoadLengths(Changeable):
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


def write_input(folder: str) -> None:
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(200)]}), f"{folder}/in.parquet")


def main(folder: str, cases: list[dict]) -> None:
    write_input(folder)
    ray.init(
        "local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    for number, actors in enumerate(cases):
        try:
            said: dict[str, object] = {"rows": run(folder, str(number), actors)}
        except ConfigError as error:
            said = {"error": str(error)}
        print(json.dumps(said), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
