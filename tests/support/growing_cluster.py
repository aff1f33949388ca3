"""A Ray cluster that grows: its autoscaler adds nodes, further raylets on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

HEAD = "f" * 51 + "00000"  # as Ray's fake provider calls it
# A run that joins needs it, too: otherwise a token of this machine is asked for, if it has one.
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}


@contextmanager
def growing_cluster(folder: Path, most: int) -> Iterator[str]:
    """Start a head without CPUs, to which up to `most` nodes of one CPU are added; its address."""
    import ray._private.services as services

    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    address = f"{services.get_node_ip_address()}:{port}"
    config = folder / "cluster.json"
    config.write_text(json.dumps(_describe(address, most)))
    session = tempfile.mkdtemp(prefix="grows", dir=os.environ["RAY_TMPDIR"])
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=0"]
    command += [f"--port={port}", f"--autoscaling-config={config}", f"--temp-dir={session}"]
    command += ["--object-store-memory=300000000", "--include-dashboard=false"]
    named = {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_CLOUD_INSTANCE_ID": HEAD}
    named |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    named |= NO_TOKEN
    try:
        subprocess.run(command, env=os.environ | named, check=True, capture_output=True)
        time.sleep(3)  # the autoscaler's first report
        yield address
    finally:
        _end(address, session)


def _describe(address: str, most: int) -> dict[str, Any]:
    provider = {"type": "fake_multinode", "gcs_address": address, "head_node_id": HEAD}
    provider |= {"disable_node_updaters": True, "disable_launch_config_check": True}
    node = {"node_config": {}}
    worker = {"CPU": 1, "object_store_memory": 100_000_000}
    types = {
        "ray.head.default": {**node, "resources": {"CPU": 0}, "max_workers": 0},
        "cpu": {**node, "resources": worker, "min_workers": 0, "max_workers": most},
    }
    commands = ["initialization", "setup", "head_setup", "worker_setup", "head_start_ray"]
    return {
        "cluster_name": "grows",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "provider": provider,
        "auth": {},
        "docker": {},
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "worker_start_ray_commands": [],
        **{f"{name}_commands": [] for name in commands},
    }


def _end(*marks: str) -> None:
    """Kill every process of the cluster. `ray stop` would end other clusters, too."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if process.pid != os.getpid() and any(mark in command for mark in marks):
            process.kill()
