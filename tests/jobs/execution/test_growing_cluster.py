"""A cluster whose autoscaler adds nodes for a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import psutil
import pyarrow.dataset as ds

from tests.support import light
from tests.support.growing_cluster import NO_TOKEN, growing_cluster

ROWS = 300
NODES = 3  # the head, and as many as the cluster may have


def test_a_run_grows_with_a_cluster_that_begins_with_a_head_alone(tmp_path, monkeypatch):
    grown = tmp_path / "grown"
    monkeypatch.setenv("LIGHT_SLOW", "0.2")  # a node may take half a minute to come
    monkeypatch.setenv("LIGHT_SLOW_UNTIL", str(grown))
    wanted = light.job(tmp_path, [f"row {n}" for n in range(ROWS)], actors={})
    (tmp_path / "job.yaml").write_text(json.dumps(wanted))
    command = [sys.executable, "-m", "tests.support.light_over_ray", "run"]
    with growing_cluster(tmp_path, most=NODES - 1) as address:
        driver = subprocess.Popen(
            [*command, str(tmp_path / "job.yaml")],
            env={**os.environ, **NO_TOKEN, "RAY_ADDRESS": address},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until = time.monotonic() + 100
        while count_raylets(address) < NODES and driver.poll() is None and time.monotonic() < until:
            time.sleep(0.5)
        grown.touch()
        _, said = driver.communicate(timeout=100)
        assert count_raylets(address) == NODES
    assert driver.returncode == 0, said
    assert "this cluster grows: set actors.num_gpus to 1" in said
    assert ds.dataset(tmp_path / "out").to_table()["n"].to_pylist() == list(range(ROWS))


def count_raylets(address: str) -> int:
    found = psutil.process_iter(["name", "cmdline"])
    mine = [one for one in found if address in " ".join(one.info["cmdline"] or [])]
    return sum(one.info["name"] == "raylet" for one in mine)
