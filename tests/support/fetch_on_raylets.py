"""A run over two raylets, each with its own cache as two machines have; a line of JSON.

    python -m tests.support.fetch_on_raylets FOLDER URL

The first task's model is FOLDER/model on a local Hub, which counts what is fetched; the second's is
at the URL. In a separate process: Ray's test cluster starts its own head, and huggingface_hub
reads its environment once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.support.hub_server import hub

ROWS, ACTORS = 40, 4
NODES = ("one", "two")


def main(folder: Path, url: str) -> None:
    with hub({"org/tiny": folder / "model"}) as (endpoint, asked):
        home = str(folder / "driver")
        os.environ |= {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": home}
        done = run_on_both(folder, ("org/tiny", url))
    fetched = [name for name in asked if name == "model.safetensors"]
    print(json.dumps({"done": done, "fetched": len(fetched), "copies": count_copies(folder)}))


def run_on_both(folder: Path, models: tuple[str, ...]) -> list[int]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray
    import ray.data
    from ray.cluster_utils import Cluster

    pq.write_table(pa.table({"text": [f"row {n}" for n in range(ROWS)]}), folder / "in.parquet")
    # A head without CPUs, as the driver's machine often is.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for name in NODES:
        cluster.add_node(num_cpus=2, env_vars={"HF_HOME": str(folder / name)})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    # On a busy machine the first actors could do all rows before the last one starts.
    ray.data.DataContext.get_current().wait_for_min_actors_s = 200
    try:
        return run(folder, models)
    finally:
        ray.shutdown()
        cluster.shutdown()


def run(folder: Path, models: tuple[str, ...]) -> list[int]:
    """Return the rows that each model has computed."""
    import pipemill

    report = pipemill.run(
        tasks=[
            {"task": "feature-extraction", "model": model, "name": f"task_{number}"}
            for number, model in enumerate(models)
        ],
        input=str(folder / "in.parquet"),
        output={"path": str(folder / "out"), "rows_per_part": 2},
        actors={"min": ACTORS, "max": ACTORS, "num_cpus": 0.7},
    )
    return [report.tasks[f"task_{number}"] for number in range(len(models))]


def count_copies(folder: Path) -> dict[str, int]:
    """Count the weights that each machine has."""
    return {name: len(list((folder / name).rglob("*.safetensors"))) for name in ("driver", *NODES)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
