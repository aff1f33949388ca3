"""A run over two raylets, each with a cache of its own as two machines have; a line of JSON.

    python -m tests.support.fetch_on_raylets FOLDER

The model is on a local Hub, which counts what is fetched. In a process of its own: Ray's test
cluster starts its own head, and huggingface_hub reads its environment once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.support.hub_server import hub

ROWS, ACTORS = 40, 4


def main(folder: Path) -> None:
    with hub({"org/tiny": folder / "model"}) as (url, asked):
        os.environ |= {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "driver")}
        found = run(folder)
    fetched = [name for name in asked if name == "model.safetensors"]
    print(json.dumps({**found, "fetched": len(fetched)}))


def run(folder: Path) -> dict[str, object]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray
    from ray.cluster_utils import Cluster

    import pipemill

    pq.write_table(pa.table({"text": [f"row {n}" for n in range(ROWS)]}), folder / "in.parquet")
    # A head without CPUs, as the driver's machine often is.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for name in ("one", "two"):
        cluster.add_node(num_cpus=2, env_vars={"HF_HOME": str(folder / name)})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    try:
        report = pipemill.run(
            task="feature-extraction",
            model="org/tiny",
            input=str(folder / "in.parquet"),
            output={"path": str(folder / "out"), "rows_per_part": 2},
            actors={"min": ACTORS, "max": ACTORS, "num_cpus": 0.7},
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    copies = [
        name for name in ("driver", "one", "two") if list((folder / name).rglob("*.safetensors"))
    ]
    return {"done": report.done, "copies": copies}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
