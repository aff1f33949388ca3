"""A Ray of so many CPUs, and a job in each placement on it; what came out as JSON.

Run by test_cpus.py in a process of its own: a Ray has one size.
"""

from __future__ import annotations

import json
import logging
import sys

import ray

import pipemill


def main(cpus: int, wanted: dict, placements: list[dict]) -> None:
    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    for number, actors in enumerate(placements):
        job = {**wanted, "actors": actors}
        job["output"] = {**job["output"], "path": f"{job['output']['path']}-{number}"}
        try:
            print(json.dumps({"rows": pipemill.run(job).done}), flush=True)
        except pipemill.ConfigError as error:
            print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))
