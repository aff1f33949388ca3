"""A cluster whose autoscaler adds nodes for a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pyarrow.dataset as ds

from tests.support import light
from tests.support.growing_cluster import NO_TOKEN, growing_cluster

ROWS = 300


def test_a_run_grows_with_a_cluster_that_begins_with_a_head_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHT_SLOW", "0.2")  # a node may take half a minute to come
    wanted = light.job(tmp_path, [f"row {n}" for n in range(ROWS)], actors={})
    (tmp_path / "job.yaml").write_text(json.dumps(wanted))
    command = [sys.executable, "-m", "tests.support.light_over_ray", "run"]
    with growing_cluster(tmp_path, most=2) as address:
        done = subprocess.run(
            [*command, str(tmp_path / "job.yaml")],
            env={**os.environ, **NO_TOKEN, "RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            timeout=200,
        )
        raylets = [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "raylet"
            and address in " ".join(process.info["cmdline"] or [])
        ]
    assert done.returncode == 0, done.stderr
    assert "this cluster grows: set actors.num_gpus to 1" in done.stderr
    assert len(raylets) == 3  # the head, and as many as the cluster may have
    assert ds.dataset(tmp_path / "out").to_table()["n"].to_pylist() == list(range(ROWS))
